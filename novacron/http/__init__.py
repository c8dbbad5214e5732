"""HTTP listeners for the API and the metrics: binding, serving ASGI within limits, stopping.

Importing this costs nothing third-party; serving imports Hypercorn.
"""

from __future__ import annotations

from novacron.http.listener import listener_address, listener_port, open_listener
from novacron.http.server import HttpServer, Limits, prefetch

__all__ = [
    "HttpServer",
    "Limits",
    "listener_address",
    "listener_port",
    "open_listener",
    "prefetch",
]

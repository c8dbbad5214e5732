"""HTTP listeners for the API and the metrics: binding, serving ASGI within limits, stopping.

Importing this costs nothing third-party; serving imports Hypercorn.
"""

from __future__ import annotations

from novacron.http.listener import (
    AddressUnavailableError,
    ListenAddressError,
    PortDeniedError,
    PortTakenError,
    listener_address,
    open_listener,
)
from novacron.http.server import HttpServer, Limits, prefetch

__all__ = [
    "AddressUnavailableError",
    "HttpServer",
    "Limits",
    "ListenAddressError",
    "PortDeniedError",
    "PortTakenError",
    "listener_address",
    "open_listener",
    "prefetch",
]

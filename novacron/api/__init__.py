"""The REST interface of a node."""

from __future__ import annotations

from novacron.api.component import Api, prefetch

__all__ = ["Api", "prefetch"]

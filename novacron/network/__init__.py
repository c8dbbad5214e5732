"""The peer listener, sessions to other nodes, and the seam they stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from novacron.network.component import Network as Network

__all__ = ["Network"]


def __getattr__(name: str) -> Any:
    # The component pulls in the security package; the seam and its tests do not need it.
    if name == "Network":
        from novacron.network.component import Network

        return Network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

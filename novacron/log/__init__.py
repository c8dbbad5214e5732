"""Logging: the standard library's, formatted, redacted, and written without holding anybody up.

Code logs with ``logging.getLogger("novacron.<package>")`` and gives fields as ``extra={…}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novacron.log.formatters import bind
from novacron.log.redaction import register_secret

if TYPE_CHECKING:
    from novacron.log.component import Logger

__all__ = ["Logger", "bind", "register_secret"]


def __getattr__(name: str) -> Any:
    # The entry point configures logging before it imports what a component needs.
    if name == "Logger":
        from novacron.log.component import Logger

        return Logger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

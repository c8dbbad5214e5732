"""What PostgreSQL sends, as the values of the seam."""

from __future__ import annotations

from psycopg import adapters
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader


class _Number(Loader):
    """``numeric``: what a sum of integers is here, and an integer in SQLite."""

    def load(self, data: bytes | bytearray | memoryview) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


class _Truth(Loader):
    """``boolean``: the seam's are 0 and 1."""

    def load(self, data: bytes | bytearray | memoryview) -> int:
        return int(bytes(data) == b"t")


class _Context:
    """What the driver's loaders are looked up in."""

    def __init__(self) -> None:
        self.adapters = AdaptersMap(adapters)
        self.adapters.register_loader("numeric", _Number)
        self.adapters.register_loader("bool", _Truth)
        self.connection = None


CONTEXT: AdaptContext = _Context()
"""For a :class:`psycopg.adapt.Transformer`."""

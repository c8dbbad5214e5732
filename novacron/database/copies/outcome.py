"""What a restoration replaces, and what it says afterwards."""

from __future__ import annotations

from pathlib import Path

from novacron.database.copies.loading import Loaded
from novacron.record import Record


class Occupant(Record):
    """What lies where something else is to lie."""

    revision: str | None
    owner: str | None
    rows: int
    size: int
    """Bytes."""
    fault: str
    """Why it could not be read; empty if it could."""


class Restored(Record):
    tables: list[Loaded]
    kept: Path | None
    """Where what was there before lies now."""
    revision: str

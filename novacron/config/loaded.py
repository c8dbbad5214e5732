"""A validated configuration, and where every value of it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from novacron.config.provenance import DEFAULT, Entry, Override, Source
from novacron.config.provenance import Path as KeyPath
from novacron.config.schema import Settings
from novacron.record import Record

if TYPE_CHECKING:
    from novacron.config.explain import Explanation


def as_plain(value: Any) -> Any:
    """*value* as JSON knows it. Unlike ``model_dump`` it needs no serialiser to be built."""
    if isinstance(value, BaseModel):
        return {name: as_plain(item) for name, item in value.__dict__.items()}
    if isinstance(value, Mapping):
        return {name: as_plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    return value


def digest_of(settings: Settings) -> str:
    """SHA-256 in hexadecimal of *settings*; equal values give equal digests, however set."""
    text = json.dumps(as_plain(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Inputs(Record):
    """What :func:`novacron.config.load` was given besides files, to do it again."""

    overrides: Mapping[str, Any] | tuple[Override, ...] = ()
    environ: Mapping[str, str] = {}
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedConfiguration:
    """What :func:`novacron.config.load` returns. Holds references to secrets, never secrets."""

    settings: Settings
    digest: str
    """Of the values alone: the same values from another file have the same digest."""
    files: tuple[Path, ...] = ()
    """In the order given, absolute."""
    file_digests: tuple[str, ...] = ()
    """SHA-256 of each file as it was read."""
    entries: Mapping[KeyPath, Entry] = field(default_factory=dict)
    """Every key that is not at its default, with its source."""
    inputs: Inputs | None = field(default=Inputs(), repr=False, compare=False)
    """None for a restored copy. Not in the repr: a variable may hold what a reference names."""

    @property
    def file_given(self) -> bool:
        return bool(self.files)

    def keys(self) -> tuple[str, ...]:
        """Every key, dotted, in the order of the schema."""
        from novacron.config import keys

        return tuple(key.name for key in keys.all_keys().values())

    def value(self, key: str) -> Any:
        """The value of *key*; of a map's name that is not set, None.

        Raises:
          ConfigError×NotFoundError: there is no such key.
        """
        from novacron.config.explain import find_key

        path, found = find_key(key)
        value: Any = self.settings
        for name in found.path:
            value = getattr(value, name)
        return value if path == found.path else value.get(path[-1])

    def source(self, key: str) -> Source:
        """Where the value of *key* came from."""
        path = tuple(key.split("."))
        entry = self.entries.get(path)
        if entry is not None:
            return entry.source
        # A map is as its latest entry.
        return next(
            (e.source for p, e in reversed(list(self.entries.items())) if p[:-1] == path), DEFAULT
        )

    def explain(self, key: str) -> Explanation:
        """Value, default, source and meaning of *key*.

        Raises:
          ConfigError×NotFoundError: there is no such key; names the nearest.
        """
        from novacron.config.explain import explain

        return explain(self, key)

    def as_dict(self) -> dict[str, Any]:
        """Every value, JSON-serialisable; :func:`novacron.config.restore` reads it back."""
        plain: dict[str, Any] = as_plain(self.settings)
        return plain

    def redacted(self) -> dict[str, Any]:
        """:meth:`as_dict` for people and the API: a value where a reference belongs is hidden."""
        from novacron.config.explain import redact

        return redact(self.as_dict())

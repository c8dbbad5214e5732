"""What a key is, what it is set to and who set it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from novacron.config import keys
from novacron.config.errors import nearest
from novacron.config.keys import Key
from novacron.config.provenance import Path
from novacron.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from novacron.config.loaded import LoadedConfiguration

HIDDEN = "(hidden)"


class UnknownKeyError(ConfigError, NotFoundError):
    """No key has this name."""

    code = "config.unknown_key"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one key; values JSON-serialisable, hidden where they may be secret."""

    key: str
    value: Any
    default: Any
    source: str
    """``default``, ``FILE:LINE``, the variable, the flag, or the profile."""
    meaning: str
    accepted: str
    reloadable: bool
    environment: str
    """The variable that sets it, and the short one where there is one."""


def find_key(name: str) -> tuple[Path, Key]:
    """The key *name* means, and its path.

    Raises:
      UnknownKeyError: there is none; names the nearest.
    """
    path = tuple(name.split("."))
    key = keys.find(path)
    if key is not None:
        return path, key
    if path in keys.sections() and name:
        inside = [k.name for k in keys.all_keys().values() if k.path[: len(path)] == path]
        raise UnknownKeyError(
            f"{name} is a section, not a key", remedy="name one of its keys: " + ", ".join(inside)
        )
    guess = nearest(name, (key.name for key in keys.all_keys().values()))
    raise UnknownKeyError(
        f"there is no configuration key {name}",
        remedy=f"did you mean {guess}?" if guess else "`novacron config show` lists all keys",
    )


def safe(key: Key, value: Any) -> Any:
    """*value* for other eyes: a reference says where a secret is, anything else there is hidden."""
    from novacron.config.loaded import as_plain

    if key.reference and value is not None:
        text = str(value)
        known = text.startswith(("file:", "env:", "credential:", "pkcs11:"))
        # RFC 7512 lets a PIN stand in the reference. Boot refuses that; until then it is not shown.
        return value if known and "pin-value" not in text else HIDDEN
    return as_plain(value)


def explain(loaded: LoadedConfiguration, name: str) -> Explanation:
    """See :meth:`LoadedConfiguration.explain`."""
    path, key = find_key(name)
    variable = keys.PREFIX + "__".join(part.upper() for part in path)
    short = [short for short, target in keys.SHORT_VARIABLES.items() if target == name]
    return Explanation(
        key=name,
        value=safe(key, loaded.value(name)),
        default=safe(key, keys.default_at(key, path)),
        source=str(loaded.source(name)),
        meaning=key.meaning,
        accepted=keys.accepted_at(key, path),
        reloadable=key.reloadable,
        environment=", ".join([variable, *short]),
    )


def redact(values: dict[str, Any]) -> dict[str, Any]:
    """*values*, nested, with what may be a secret hidden; changed in place and returned."""
    for key in keys.all_keys().values():
        if key.reference:
            where = values
            for name in key.path[:-1]:
                where = where[name]
            where[key.path[-1]] = safe(key, where[key.path[-1]])
    return values

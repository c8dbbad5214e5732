"""The schema as a flat list of keys: what each takes, in words and as text.

Built from the models when first asked for. A boot on defaults never asks.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from novacron.config.provenance import Path
from novacron.config.schema import Settings
from novacron.record import Record

PREFIX = "NOVACRON_"

_IN_SECONDS = re.compile(r"^Seconds\b|\bin seconds\b")

SHORT_VARIABLES = {
    "NOVACRON_NODE_ID": "system.node_id",
    "NOVACRON_DATA_DIR": "system.data_dir",
    "NOVACRON_LOG_LEVEL": "system.log_level",
    "NOVACRON_DWCP_MODE": "dwcp.mode",
    "NOVACRON_LISTEN_ADDRESS": "network.listen_address",
}


class Shape(Record):
    """What a value of one type may be."""

    base: str
    """``bool``, ``int``, ``float``, ``str``, ``choice``, ``list`` or ``map``."""
    optional: bool = False
    choices: tuple[str, ...] = ()
    item: Shape | None = None
    """Of a list's members, or a map's values."""
    words: str = ""
    """The same for a person."""


class Key:
    """One configuration key."""

    __slots__ = ("extra", "field", "path", "shape")

    def __init__(self, path: Path, field: FieldInfo) -> None:
        self.path = path
        self.field = field
        extra = field.json_schema_extra
        self.extra: dict[str, Any] = dict(extra) if isinstance(extra, dict) else {}
        self.shape = shape_of(field.annotation, tuple(field.metadata))

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def default(self) -> Any:
        return self.field.get_default(call_default_factory=True)

    @property
    def meaning(self) -> str:
        return self.field.description or ""

    @property
    def accepted(self) -> str:
        words = str(self.extra.get("accepted") or self.shape.words)
        if self.shape.base == "int" and self.path[-1].endswith("_bytes"):
            return words.replace("a whole number", "a whole number of bytes", 1)
        if self.shape.base == "float" and _IN_SECONDS.search(self.meaning):
            return words.replace("a number", "a number of seconds", 1)
        return words

    @property
    def reloadable(self) -> bool:
        return bool(self.extra.get("reloadable"))

    @property
    def reference(self) -> bool:
        """Whether the value says where a secret is."""
        return bool(self.extra.get("reference"))

    @property
    def variable(self) -> str:
        return PREFIX + "__".join(part.upper() for part in self.path)


def _number_words(noun: str, metadata: tuple[Any, ...]) -> str:
    low = high = step = ""
    for item in metadata:
        if (value := getattr(item, "multiple_of", None)) is not None:
            step = f", a multiple of {value}"
        if (value := getattr(item, "ge", None)) is not None:
            low = f"at least {value}"
        elif (value := getattr(item, "gt", None)) is not None:
            low = f"greater than {value}"
        if (value := getattr(item, "le", None)) is not None:
            high = f"at most {value}"
        elif (value := getattr(item, "lt", None)) is not None:
            high = f"less than {value}"
    limits = " and ".join(part for part in (low, high) if part)
    return (f"{noun}, {limits}" if limits else noun) + step


def shape_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
    """Describe the type *annotation* with its constraints *metadata*."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        flattened: list[Any] = []
        for item in more:
            # A Field(...) inside a nested Annotated keeps its constraints in its own metadata.
            flattened.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        return shape_of(inner, (*flattened, *metadata))
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in get_args(annotation) if arg is not type(None))
        shape = shape_of(inner, metadata)
        return shape._replace(optional=True, words=f"{shape.words}, or null")
    if origin is Literal:
        choices = get_args(annotation)
        return Shape("choice", choices=choices, words="one of " + ", ".join(choices))
    if origin is tuple:
        item = shape_of(get_args(annotation)[0])
        limit = next((m.max_length for m in metadata if hasattr(m, "max_length")), None)
        words = f"a list in brackets, each {item.words}"
        return Shape(
            "list", item=item, words=f"{words}, at most {limit} of them" if limit else words
        )
    if origin is dict:
        item = shape_of(get_args(annotation)[1])
        return Shape("map", item=item, words=f"a mapping of names, each to {item.words}")
    if annotation is bool:
        return Shape("bool", words="true or false")
    if annotation is int:
        return Shape("int", words=_number_words("a whole number", metadata))
    if annotation is float:
        return Shape("float", words=_number_words("a number", metadata))
    pattern = next((m.pattern for m in metadata if getattr(m, "pattern", None)), None)
    return Shape("str", words=f"text that matches {pattern}" if pattern else "text")


def is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _walk(model: type[BaseModel], prefix: Path) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if is_section(field):
            assert isinstance(field.annotation, type)
            yield from _walk(field.annotation, (*prefix, name))
        else:
            yield Key((*prefix, name), field)


_keys: dict[Path, Key] = {}
_sections: set[Path] = set()


def all_keys() -> dict[Path, Key]:
    """Every key of the schema, in its order."""
    if not _keys:
        found = {key.path: key for key in _walk(Settings, ())}
        for path in found:
            _sections.update(path[:length] for length in range(len(path)))
        _keys.update(found)
    return _keys


def sections() -> set[Path]:
    """Every path that is a section and not a key; the empty one is the whole."""
    all_keys()
    return _sections


def find(path: Path) -> Key | None:
    """The key *path* names; ``boot.criticality.cache`` finds the map ``boot.criticality``."""
    keys = all_keys()
    if (key := keys.get(path)) is not None:
        return key
    if (key := keys.get(path[:-1])) is not None and key.shape.base == "map":
        return key
    return None


def shape_at(key: Key, path: Path) -> Shape:
    """The shape of what stands at *path*: of the key, or of one value of its map."""
    if len(path) > len(key.path) and key.shape.item is not None:
        return key.shape.item
    return key.shape


def accepted_at(key: Key, path: Path) -> str:
    """What *path* takes, in words."""
    return key.accepted if path == key.path else shape_at(key, path).words


def default_at(key: Key, path: Path) -> Any:
    return key.default if path == key.path else None


_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def from_text(text: str, shape: Shape) -> Any:
    """Read *text* from a variable or a flag as the type the key wants.

    What does not read as that type is returned as it stands: validation then refuses it in the
    same words as it would in a file.
    """
    if shape.optional and text in ("", "null"):
        return None
    match shape.base:
        case "bool":
            lowered = text.strip().lower()
            return True if lowered in _TRUE else False if lowered in _FALSE else text
        case "int":
            digits = text.strip()
            sign = digits[:1] in ("-", "+")
            # int() itself also takes 1_000 and other scripts' digits; and very long ones slowly.
            plain = digits[sign:].isascii() and digits[sign:].isdigit() and len(digits) < 40
            return int(digits) if plain else text
        case "float":
            try:
                return float(text) if "_" not in text else text
            except ValueError:
                return text
        case "list":
            return _list_from_text(text, shape.item or Shape("str"))
        case "map":
            return _map_from_text(text, shape.item or Shape("str"))
        case _:
            return text


def _list_from_text(text: str, item: Shape) -> Any:
    if text.lstrip().startswith("["):
        return _json(text)
    return tuple(from_text(part.strip(), item) for part in text.split(",") if part.strip())


def _map_from_text(text: str, item: Shape) -> Any:
    if text.lstrip().startswith("{"):
        return _json(text)
    pairs = [part.strip() for part in text.split(",") if part.strip()]
    if not all("=" in pair for pair in pairs):
        return text
    split = (pair.split("=", 1) for pair in pairs)
    return {name.strip(): from_text(value.strip(), item) for name, value in split}


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text

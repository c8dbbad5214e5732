"""The layers a configuration is put together from, each as entries by key.

Lowest first: defaults, the profile of the network mode, files in the order given, environment
variables, the command line. A layer only knows names; whether values are right is validated later,
in the same words for every layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from novacron.config import keys
from novacron.config.documents import Node, plain
from novacron.config.errors import Problem, nearest
from novacron.config.provenance import Entry, Override, Path, Source

Layer = dict[Path, Entry]


def from_tree(root: Node, source: Source, problems: list[Problem]) -> Layer:
    """Entries of a parsed file; unknown keys and misplaced values go to *problems*."""
    layer: Layer = {}
    if root.value is None:
        return layer
    if not isinstance(root.value, dict):
        problems.append(
            Problem(
                "",
                source._replace(line=root.line),
                "a mapping of sections is expected, such as “api:” with its keys indented below it",
            )
        )
        return layer
    _descend(root, (), source, layer, problems)
    return layer


def _descend(
    node: Node, prefix: Path, source: Source, layer: Layer, problems: list[Problem]
) -> None:
    for name, child in node.value.items():
        path = (*prefix, name)
        place = source._replace(line=child.line, column=child.column)
        if path in keys.sections():
            if isinstance(child.value, dict):
                _descend(child, path, source, layer, problems)
            elif child.value is not None:
                accepted = "a mapping of its keys"
                if isinstance(child.value, str) and ":" in child.value:
                    accepted += ", with a blank after each colon"
                problems.append(Problem(".".join(path), place, "is a section", accepted))
            continue
        key = keys.all_keys().get(path)
        if key is None:
            problems.append(unknown_key(path, place))
        elif key.shape.base == "map" and isinstance(child.value, dict):
            for entry, value in child.value.items():
                _put(
                    layer,
                    (*path, entry),
                    plain(value),
                    source._replace(line=value.line, column=value.column),
                )
        else:
            _put(layer, path, plain(child), place)


def _put(layer: Layer, path: Path, value: Any, source: Source) -> None:
    """Enter *value*, a map one by one so that layers merge by name."""
    key = keys.find(path)
    if key is not None and path == key.path:
        if key.shape.base == "list" and isinstance(value, list):
            value = tuple(value)
        if key.shape.base == "map":
            if value is None:
                return
            if isinstance(value, dict):
                for name, item in value.items():
                    layer[(*path, name)] = Entry(item, source)
                return
    layer[path] = Entry(value, source)


def unknown_key(path: Path, source: Source) -> Problem:
    """The problem of a key that is not in the schema."""
    name = ".".join(path)
    siblings = [key.path for key in keys.all_keys().values()]
    siblings += [section for section in keys.sections() if section]
    here = [p[-1] for p in siblings if p[:-1] == path[:-1]]
    guess = nearest(path[-1], here)
    if guess:
        guess = ".".join((*path[:-1], guess))
    else:
        guess = nearest(name, (".".join(p) for p in siblings))
        if not guess:
            # The right key in the wrong section is the other common mistake.
            guess = next((".".join(p) for p in siblings if p[-1] == path[-1]), "")
    return Problem(name, source, "there is no such key", nearest=guess)


def from_flat(values: Mapping[str, Any], source: Source, problems: list[Problem]) -> Layer:
    """Entries of dotted keys and typed values: a profile, or a stored copy."""
    layer: Layer = {}
    for name, value in values.items():
        path = tuple(name.split("."))
        if keys.find(path) is None:
            problems.append(unknown_key(path, source))
        else:
            _put(layer, path, value, source)
    return layer


def from_overrides(
    overrides: Mapping[str, Any] | Iterable[Override], problems: list[Problem]
) -> Layer:
    """Entries of the command line. A later flag wins over an earlier one."""
    layer: Layer = {}
    if isinstance(overrides, Mapping):
        overrides = [Override(key, value) for key, value in overrides.items()]
    for override in overrides:
        source = Source("command line", override.flag)
        path = tuple(override.key.split("."))
        key = keys.find(path)
        if key is None:
            message = "is a section" if path in keys.sections() else ""
            problems.append(
                Problem(override.key, source, message, "one of its keys")
                if message
                else unknown_key(path, source)
            )
            continue
        value = override.value
        if isinstance(value, str):
            value = keys.from_text(value, keys.shape_at(key, path))
        _put(layer, path, value, source)
    return layer


def from_environment(
    environ: Mapping[str, str], problems: list[Problem]
) -> tuple[Layer, list[Problem]]:
    """Entries of ``NOVACRON_…`` variables, and the problems of those that name no key.

    The latter are kept apart: a variable that a reference such as ``env:NOVACRON_MASTER_KEY`` names
    is no mistake, and which those are is only known when all layers are merged.
    """
    layer: Layer = {}
    unknown: list[Problem] = []
    # Short names first, so that they are there when the long one is compared with them.
    names = sorted(
        (name for name in environ if name.startswith(keys.PREFIX)),
        key=lambda name: (name not in keys.SHORT_VARIABLES, name),
    )
    for name in names:
        source = Source("environment", name)
        short = keys.SHORT_VARIABLES.get(name)
        path = (
            tuple(short.split("."))
            if short
            else tuple(part.lower() for part in name[len(keys.PREFIX) :].split("__"))
        )
        key = keys.find(path)
        if key is None or not all(path):
            unknown.append(_unknown_variable(name, source))
            continue
        value = keys.from_text(environ[name], keys.shape_at(key, path))
        before = layer.get(path)
        if before is not None and before.value != value:
            problems.append(
                Problem(
                    ".".join(path),
                    source,
                    f"differs from {before.source}, which sets the same key",
                    "one of the two variables",
                )
            )
        _put(layer, path, value, source)
    return layer, unknown


def _unknown_variable(name: str, source: Source) -> Problem:
    known = [key.variable for key in keys.all_keys().values()] + list(keys.SHORT_VARIABLES)
    return Problem(
        "",
        source,
        "no configuration key has this variable",
        nearest=nearest(name, known),
    )


def merge(layers: Sequence[Layer]) -> Layer:
    """One layer, the later ones of *layers* winning."""
    merged: Layer = {}
    for layer in layers:
        for path, entry in layer.items():
            merged.pop(path, None)  # So that the order is that of precedence.
            merged[path] = entry
    return merged

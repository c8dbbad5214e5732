"""Values against the schema: pydantic decides, the words are ours.

Validated a section and a layer at a time, so that only the sections somebody set have their
validators built, and so that a wrong value is reported also where a higher layer hides it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from novacron.config import keys
from novacron.config.errors import Problem
from novacron.config.layers import Layer
from novacron.config.provenance import Path
from novacron.config.schema import Settings


def _nested(layer: Layer) -> dict[str, dict[str, Any]]:
    """*layer* as sections; what stands at a map itself (a wrong type) wins over its names."""
    tree: dict[str, Any] = {}
    for path, entry in sorted(layer.items(), key=lambda item: -len(item[0])):
        where = tree
        for name in path[:-1]:
            where = where.setdefault(name, {})
        where[path[-1]] = entry.value
    return tree


def _section_model(name: str) -> type[BaseModel]:
    model = Settings.model_fields[name].annotation
    assert isinstance(model, type)
    return model


def validate_layer(layer: Layer) -> list[Problem]:
    """Everything that is wrong with the values of *layer*."""
    problems: list[Problem] = []
    for section, values in _nested(layer).items():
        try:
            _section_model(section).model_validate(values)
        except ValidationError as error:
            problems += [
                _problem((section, *map(str, item["loc"])), item["type"], layer)
                for item in error.errors(include_url=False, include_context=False)
            ]
        except (OverflowError, RecursionError) as error:
            problems += [
                Problem(".".join(path), entry.source, f"cannot be used: {error}")
                for path, entry in layer.items()
                if path[0] == section
            ]
    return sorted(set(problems), key=lambda problem: (problem.source, problem.key))


def _problem(location: Path, kind: str, layer: Layer) -> Problem:
    """Turn one of pydantic's errors into ours; *location* may go deeper than our entries."""
    path = location
    while path and path not in layer:
        path = path[:-1]
    if not path:
        # A name that is no text pydantic can repeat; the map or section it stands in is.
        path = next(path for path in layer if path[:2] == location[:2] or path[0] == location[0])
    entry = layer[path]
    key = keys.find(path)
    assert key is not None
    accepted, shape = keys.accepted_at(key, path), keys.shape_at(key, path)
    if key.reference:
        found = "its value is not a reference (and is not shown, in case it is the secret itself)"
    elif len(location) > len(path) and location[-1].isdecimal():
        found = f"its item {int(location[-1]) + 1} is not accepted"
    elif kind.endswith("_type") or kind in ("int_from_float",):
        found = f"{shown(entry.value)} is {_type_words(entry.value)}"
        quoted = isinstance(entry.value, str) and shape.base in ("int", "float")
        if quoted and not isinstance(keys.from_text(entry.value, shape), str):
            found += ", write it without quotes"
    else:
        found = f"{shown(entry.value)} is not accepted"
    return Problem(".".join(path), entry.source, found, accepted)


def _type_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a mapping" if isinstance(value, dict) else "a list"


def shown(value: Any) -> str:
    """*value* as an error message repeats it: short, on one line."""
    import json

    text = json.dumps(value, ensure_ascii=False, default=repr)
    # A variable may hold bytes that are no text.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 60 else text[:57] + "..."


def settings_from(merged: Layer) -> Settings:
    """Settings of *merged*, every layer of which was validated."""
    tree = _nested(merged)
    built: dict[str, Any] = {
        name: _section_model(name).model_validate(values) for name, values in tree.items()
    }
    return Settings.model_construct(**built)


def referenced_variables(merged: Layer) -> set[str]:
    """Names of the environment variables that references in *merged* name."""
    return {
        entry.value[4:]
        for path, entry in merged.items()
        if isinstance(entry.value, str)
        and entry.value.startswith("env:")
        and (key := keys.find(path)) is not None
        and key.reference
    }

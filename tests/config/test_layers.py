"""Properties: every way to set a value is the same way; garbage is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.config import ConfigInvalidError, Problem, load
from novacron.config.keys import Key, Shape, all_keys

TEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=",[]{}=\x7f"),
    min_size=1,
    max_size=20,
).filter(lambda text: text != "null" and text.isprintable())


def limits(key: Key) -> tuple[float, float]:
    low, high = -(10.0**6), 10.0**9
    for item in key.field.metadata:
        low = getattr(item, "ge", low)
        low = getattr(item, "gt", low)
        high = getattr(item, "le", high)
    return low, high


def values_for(key: Key, shape: Shape) -> st.SearchStrategy[Any]:
    low, high = limits(key)
    match shape.base:
        case "bool":
            return st.booleans()
        case "choice":
            return st.sampled_from(shape.choices)
        case "int":
            return st.integers(int(low), int(high))
        case "float":
            return (
                st.floats(max(low, 0.001), high, allow_nan=False)
                .map(lambda x: round(x, 3))
                .filter(lambda x: x > low)
            )
        case "list":
            return st.lists(TEXT, max_size=4)
        case "map":
            assert shape.item is not None
            names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
            item = (
                st.sampled_from(shape.item.choices)
                if shape.item.choices
                else st.integers(1, 100).map(float)
            )
            return st.dictionaries(names, item, min_size=1, max_size=3)
        case _:
            return TEXT


def problems_of(**arguments: Any) -> tuple[Problem, ...]:
    """What :func:`load` finds wrong; nothing when it takes the values."""
    try:
        load(**arguments)
    except ConfigInvalidError as error:
        return error.problems
    return ()


def plain_keys() -> list[Key]:
    """Keys whose value is free within their type: no pattern."""
    return [key for key in all_keys().values() if "accepted" not in key.extra]


@st.composite
def assignments(draw: st.DrawFn) -> tuple[Key, Any]:
    key = draw(st.sampled_from(plain_keys()))
    return key, draw(values_for(key, key.shape))


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def loaded_value(key: Key, **layers: Any) -> Any:
    """What *key* becomes, or the words of the refusal: rules between keys may hit a value."""
    try:
        return load(
            layers.get("files", ()), layers.get("overrides", ()), layers.get("environ", {})
        ).value(key.name)
    except ConfigInvalidError as error:
        return [(problem.key, problem.message) for problem in error.problems]


@given(assignments())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_value_is_the_same_through_every_layer(
    tmp_path: Path, assignment: tuple[Key, Any]
) -> None:
    key, value = assignment
    tree: Any = value
    for name in reversed(key.path):
        tree = {name: tree}
    as_json, as_yaml = tmp_path / "node.json", tmp_path / "node.yaml"
    as_json.write_text(json.dumps(tree))
    as_yaml.write_text(json.dumps(tree, ensure_ascii=False))
    found = [
        loaded_value(key, files=[as_json]),
        loaded_value(key, files=[as_yaml]),
        loaded_value(key, overrides={key.name: value}),
        loaded_value(key, overrides={key.name: as_text(value)}),
        loaded_value(key, environ={key.variable: as_text(value)}),
    ]
    assert all(item == found[0] for item in found), found
    expected = tuple(value) if isinstance(value, list) else value
    assert found[0] == expected or isinstance(found[0], list)


@given(st.text(max_size=200) | st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_garbage_in_a_file_raises_nothing_but_config_errors(
    tmp_path: Path, garbage: str | bytes
) -> None:
    data = garbage.encode("utf-8", "surrogatepass") if isinstance(garbage, str) else garbage
    for name in ("node.yaml", "node.json"):
        (tmp_path / name).write_bytes(data)
        assert all(map(str, problems_of(files=[tmp_path / name], environ={})))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(all_keys())), JSON_VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_value_at_any_key_is_taken_or_refused_in_words(
    tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    tree: Any = value
    for name in reversed(path):
        tree = {name: tree}
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps(tree))
    for problem in problems_of(files=[file], environ={}):
        assert problem.message
        assert problem.source.name == str(file)


@given(
    st.sampled_from(sorted(all_keys())),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
)
@settings(max_examples=200)
def test_any_text_in_any_variable_is_taken_or_refused_in_words(
    path: tuple[str, ...], text: str
) -> None:
    key = all_keys()[path]
    for problem in problems_of(environ={key.variable: text}):
        assert problem.source.name == key.variable


@pytest.mark.parametrize("text", ["1_0", "٣", "0x10", "1e2", "", " ", "9" * 5000, "--1", "+-1"])
def test_text_that_only_python_reads_as_a_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalidError, match="a whole number"):
        load(environ={"NOVACRON_API__PORT": text})


@pytest.mark.parametrize("text", ["inf", "nan", "1_0.5", "-inf", "1e999"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalidError, match=r"api\.rate_limit"):
        load(environ={"NOVACRON_API__RATE_LIMIT": text})


@pytest.mark.parametrize("text", ["", "null"])
def test_an_optional_key_is_unset_by_an_empty_variable(text: str, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("system: {data_dir: x}\n")
    loaded = load([file], environ={"NOVACRON_DATA_DIR": text})
    assert loaded.settings.system.data_dir is None

"""Both readers: places, limits, and messages with the line itself and a caret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config import ConfigInvalidError, ConfigUnreadableError, load, yaml_document
from novacron.config.documents import (
    MAX_DEPTH,
    MAX_FILE_BYTES,
    DocumentError,
    Node,
    excerpt,
    parse_json,
    plain,
)
from novacron.config.yaml_document import parse_yaml

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(JSON_VALUES, st.sampled_from([None, 1]))
def test_json_is_read_as_the_standard_library_reads_it(value: Any, indent: int | None) -> None:
    assert plain(parse_json(json.dumps(value, indent=indent))) == value


def outcome(parse: Callable[[str], Any], text: str) -> Any:
    """What *parse* makes of *text*, or the refusal."""
    try:
        return parse(text)
    except (DocumentError, ValueError, RecursionError) as error:
        return error


@given(st.text(alphabet='{}[]",:0123456789-+.eE truefalsn\\u\n\t'))
def test_json_accepts_what_the_standard_library_accepts_and_no_more(text: str) -> None:
    expected = outcome(lambda text: json.loads(text, parse_constant=_refuse), text)
    found = outcome(parse_json, text)
    if isinstance(found, DocumentError):
        # Stricter in three things: a key that is there twice, half a character, a huge number.
        stricter = ("twice", "half a surrogate", "more than")
        refused = isinstance(expected, Exception)
        assert refused or any(words in found.message for words in stricter)
    else:
        assert plain(found) == expected or not text.strip(" \t\r\n")


def _refuse(name: str) -> None:
    raise ValueError(name)


@given(st.text(max_size=300))
def test_yaml_garbage_is_read_or_refused_in_words(text: str) -> None:
    found = outcome(parse_yaml, text)
    assert isinstance(found, Node) or (isinstance(found, DocumentError) and found.message)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("12:30", "12:30"),
        ("0123", 123),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-7", -7),
        ("'7'", "7"),
        ('"true"', "true"),
        ("!!str 7", "7"),
        ("!!int 7", 7),
        ("2026-01-01", "2026-01-01"),
        (".nan", ".nan"),
        ("- 1\n- [a, b]", [1, ["a", "b"]]),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)
def test_yaml_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    assert plain(parse_yaml(text)) == value


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("api:\n\tport: 1\n", "spaces, not tabs", 2, 1),
        ("api:\n  port: 1\n  port: 2\n", "'port' is there twice, first in line 2", 3, 3),
        ("api:\n  port: [1, 2\ndwcp: {}\n", "", 3, 5),
        ("api:\n  port: a: b\n", "mapping values are not allowed", 2, 10),
        ("a: 1\n---\nb: 2\n", "a second document begins here", 2, 1),
        ("a: *gone\n", "names no complete anchor", 1, 4),
        ("a: &x\n  b: *x\n", "names no complete anchor", 2, 6),
        ("a: {<<: {b: 1}}\n", "merge keys", 1, 5),
        ("a: !!python/object:os.system x\n", "the tag", 1, 4),
        ("a: !x y\n", "the tag !x is not supported", 1, 4),
        ("1: x\n", "a key must be text, not 1", 1, 1),
        ("[a]: x\n", "a key must be text", 1, 1),
        ("a: \x07\n", "", 1, 4),
        ("a: 'x\n", "", 2, 1),
        ('a: "\\ud800"\n', "invalid Unicode character escape code", 1, 7),
    ],
)
def test_a_mistake_in_yaml_is_named_with_its_place(
    text: str, message: str, line: int, column: int
) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ('{\n  "a": 1,\n  "a": 2\n}', "'a' is there twice, first in line 2", 3, 3),
        ('{\n  "a": 1,\n}', "a key in double quotes", 3, 1),
        ('{"a" 1}', "a colon", 1, 6),
        ('{"a": 1 "b": 2}', "a comma or a closing brace", 1, 9),
        ("[1 2]", "a comma or a closing bracket", 1, 4),
        ('{"a": nul}', "a JSON value", 1, 7),
        ('{"a": "x\n"}', "control character", 1, 9),
        ("{} x", "more after the end", 1, 4),
        ("[" + "9" * 50 + "]", "more than 40 digits", 1, 2),
        ("[NaN]", "a JSON value", 1, 2),
        ('["\\ud800"]', "half a surrogate pair", 1, 2),
    ],
)
def test_a_mistake_in_json_is_named_with_its_place(
    text: str, message: str, line: int, column: int
) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(text)
    assert message in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: [1, 'x', ~]}\nc: |\n  two\n  lines\n",
        "a: &x {b: 1}\nc: *x\n",
        "# nothing\n",
        "--- {a: !!str 1}\n...\n",
    ],
)
def test_without_libyaml_the_tree_is_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_libyaml = parse_yaml(text)
    assert yaml_document.Parser is not yaml_document.PythonParser
    monkeypatch.setattr(yaml_document, "Parser", yaml_document.PythonParser)
    assert parse_yaml(text) == with_libyaml


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\t- x", 'a: "\\ud800"', "a: \x07", "[" * 5000]
)
def test_without_libyaml_mistakes_are_refused_as_well(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_document, "Parser", yaml_document.PythonParser)
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    assert caught.value.line == 1


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(DocumentError, match="more than 50000 values"):
        parse_yaml("\n".join(lines))


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5000, 100_000])
def test_nesting_is_bounded(parse: Any, depth: int) -> None:
    with pytest.raises(DocumentError):
        parse("[" * depth + "]" * depth)


def test_aliases_do_not_nest_deeper_than_brackets() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(DocumentError, match="nested deeper"):
        parse_yaml("\n".join(lines))


def test_the_message_shows_the_line_and_a_caret(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api:\n  port: [1\n  tls: auto\n")
    with pytest.raises(ConfigInvalidError) as caught:
        load([file], environ={})
    text = str(caught.value)
    assert f"{file}:3: YAML: " in text
    assert "(line 3, column 6)" in text
    line, caret = text.splitlines()[1:3]
    assert line.strip() == "3 |   tls: auto"
    assert line.index("tls:") + len("tls") == caret.index("^")


def test_a_long_line_is_cut_around_the_caret() -> None:
    line, caret = excerpt("x" * 500 + "!" + "y" * 500, 1, 501).splitlines()
    assert line[caret.index("^")] == "!"
    assert len(line) < 120


def test_an_excerpt_of_no_line_is_nothing() -> None:
    assert excerpt("a\n", 9, 1) == ""


def test_mistakes_in_two_files_are_reported_together(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.json"
    first.write_text("a: [\n")
    second.write_text("{")
    with pytest.raises(ConfigInvalidError) as caught:
        load([first, second], environ={"NOVACRON_X": "1"})
    assert [problem.source.name for problem in caught.value.problems] == [
        str(first),
        str(second),
        "NOVACRON_X",
    ]


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_bytes(b"api:\n  port: \xff\n")
    with pytest.raises(ConfigInvalidError, match="not UTF-8") as caught:
        load([file], environ={})
    assert caught.value.problems[0].source.line == 2


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    file.write_bytes(b'\xef\xbb\xbf{"api": {"port": 5}}')
    assert load([file], environ={}).settings.api.port == 5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigUnreadableError, match="does not exist") as caught:
        load([tmp_path / "gone.yaml"], environ={})
    assert "gone.yaml" in caught.value.what
    assert caught.value.remedy


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigUnreadableError, match="it is a directory"):
        load([tmp_path], environ={})


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigUnreadableError, match="permission is denied"):
        load([tmp_path / "node.yaml"], environ={})


def test_a_disk_error_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ConfigUnreadableError, match="Input/output error"):
        load([tmp_path / "node.yaml"], environ={})


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigUnreadableError, match="larger than"):
        load([file], environ={})

"""Records become lines that machines and people can read, whatever is in them."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config import ConfigInvalidError, load
from novacron.log import bind
from novacron.log.formatters import MAX_LINE, JsonFormatter, PlainFormatter, timestamp


def record(message: object, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("novacron.test", logging.WARNING, "x.py", 1, message, args, None)
    made.created = 1700000000.5
    vars(made).update(extra)
    return made


def as_object(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(found, dict)
    return found


def test_a_json_line_has_the_documented_fields() -> None:
    bind(boot_id="b1", node_id="n1")
    assert as_object(record("hello %s", "you", peer="p1", size=3)) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "warning",
        "logger": "novacron.test",
        "message": "hello you",
        "boot_id": "b1",
        "node_id": "n1",
        "peer": "p1",
        "size": 3,
    }


@given(st.floats(0, 4e9))
def test_a_timestamp_is_rfc_3339_in_utc(created: float) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp(created))


def test_a_timestamp_just_before_a_second_does_not_lose_it() -> None:
    assert timestamp(1700000000.9999) == "2023-11-14T22:13:20.999Z"


def test_a_field_cannot_pass_for_one_of_ours() -> None:
    found = as_object(record("x", level="fatal", time="never", exception="forged"))
    assert found["level"] == "warning"
    assert found["level_"] == "fatal"
    assert found["time_"] == "never"
    assert found["exception_"] == "forged"
    assert "exception" not in found


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def circular() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        {1: 2},
        {(1, 2): 3},
        circular(),
        Unshowable(),
        b"\xff",
        "\ud800",
        {1, 2},
    ],
)
def test_a_field_json_has_no_word_for_still_gives_a_line(value: Any) -> None:
    found = as_object(record("x", value=value))
    assert found["message"] == "x"
    assert "value" in found
    PlainFormatter().format(record("x", value=value)).encode()


def test_arguments_that_do_not_fit_are_said_and_not_raised() -> None:
    for formatter in (JsonFormatter(), PlainFormatter()):
        line = formatter.format(record("%d apples", "many"))
        assert "%d apples" in line
        assert "do not fit" in line


def raised(error: BaseException) -> logging.LogRecord:
    try:
        raise error
    except BaseException:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


def test_an_exception_is_structured() -> None:
    exception = as_object(raised(ValueError("bad")))["exception"]
    assert exception["type"] == "builtins.ValueError"
    assert exception["message"] == "bad"
    assert exception["traceback"].startswith("Traceback")


def test_an_error_of_ours_brings_its_remedy_and_key() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load(overrides={"api.port": "x"}, environ={})
    exception = as_object(raised(caught.value))["exception"]
    assert exception["code"] == "config.invalid"
    assert exception["key"] == "api.port"
    assert "novacron config check" in exception["remedy"]


def test_a_group_shows_every_error_in_it() -> None:
    text = as_object(raised(ExceptionGroup("two", [ValueError("first"), OSError("second")])))
    assert "first" in text["exception"]["traceback"]
    assert "second" in text["exception"]["traceback"]


def test_a_stack_is_shown() -> None:
    assert as_object(record("x", stack_info="Stack (most recent call last)"))["stack"]


def test_a_plain_line_is_for_people() -> None:
    line = PlainFormatter().format(record("hello %s", "you", peer="p1"))
    assert line == "2023-11-14T22:13:20.500Z WARNING novacron.test: hello you peer=p1"


def test_a_plain_traceback_stands_indented_below() -> None:
    first, *rest = PlainFormatter().format(raised(ValueError("bad"))).splitlines()
    assert first.endswith("it failed")
    assert rest
    assert all(row.startswith("    ") for row in rest)
    assert rest[-1] == "    ValueError: bad"


@pytest.mark.parametrize("formatter", [JsonFormatter(), PlainFormatter()], ids=["json", "plain"])
def test_what_a_peer_sends_cannot_forge_a_line_or_steer_the_terminal(
    formatter: logging.Formatter,
) -> None:
    line = formatter.format(record("from %s", "x\n2023 ERROR\r\x1b[2J\x9b", field="\x00\n"))
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f]", line.replace("\x9b", "") if line[0] == "{" else line
    )


def test_a_line_is_bounded_and_still_json() -> None:
    found = as_object(
        record("x" * 10 * MAX_LINE, **{f"field{n}": "y" * MAX_LINE for n in range(100)})
    )
    assert found["truncated"] is True
    assert found["message"].endswith(f"… ({10 * MAX_LINE} characters)")
    assert len(json.dumps(found)) < MAX_LINE
    assert len(PlainFormatter().format(record("x" * 10 * MAX_LINE))) < MAX_LINE + 100


@given(
    st.text(),
    st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda t: not hasattr(logging.makeLogRecord({}), t)),
        st.text() | st.integers() | st.floats(),
    ),
)
def test_any_record_becomes_one_json_line(message: str, extra: dict[str, Any]) -> None:
    made = record("x")
    made.msg = message
    vars(made).update(extra)
    json.loads(JsonFormatter().format(made).encode())

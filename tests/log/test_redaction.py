"""What is registered does not come out again, in whatever form it went in."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.log import register_secret
from novacron.log.formatters import MAX_LINE, JsonFormatter, PlainFormatter
from novacron.log.redaction import MASK, forget_secret, mask

SECRET = 'planted "secret"\\ with ünicode'

PEM = (
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIPlantedPlantedPlantedPlantedPlantedPlanted\n"
    "-----END PRIVATE KEY-----\n"
)

FORMATTERS = [JsonFormatter(), PlainFormatter()]


def record(message: object, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("novacron.test", logging.INFO, "x.py", 1, message, args, None)
    vars(made).update(extra)
    return made


def raised(error: Exception) -> logging.LogRecord:
    try:
        raise error
    except Exception:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


PLACES: list[Callable[[str], logging.LogRecord]] = [
    lambda secret: record(f"key is {secret}"),
    lambda secret: record("key is %s", secret),
    lambda secret: record("key is %r", secret),
    lambda secret: record({"key": secret}),
    lambda secret: record("see", key=secret),
    lambda secret: record("see", nested={"keys": [secret]}),
    lambda secret: record("see", raw=secret.encode()),
    lambda secret: raised(ValueError(secret)),
    lambda secret: raised(ExceptionGroup("several", [ValueError(secret)])),
    lambda secret: record("hex %s", secret.encode().hex()),
    lambda secret: record("HEX %s", secret.encode().hex().upper()),
    lambda secret: record("b64 %s", base64.b64encode(secret.encode()).decode()),
    lambda secret: record("b64 %s", base64.urlsafe_b64encode(secret.encode()).decode()),
]


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, str):
        yield value


def leaks(line: str, secret: str) -> bool:
    """Whether *line* holds *secret*, as it is or in any way it may have been written."""
    raw = secret.encode()
    forms = [
        secret,
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    ]
    if line.startswith("{"):
        line += "".join(texts_in(json.loads(line)))
    return any(form.lower() in line.lower() for form in forms)


@pytest.mark.parametrize("formatter", FORMATTERS, ids=["json", "plain"])
@pytest.mark.parametrize("place", range(len(PLACES)))
@pytest.mark.parametrize("secret", [SECRET, "hunter2hunter2"])
def test_a_registered_value_is_masked_wherever_it_stands(
    formatter: logging.Formatter, place: int, secret: str
) -> None:
    assert leaks(formatter.format(PLACES[place](secret)), secret)
    register_secret(secret)
    line = formatter.format(PLACES[place](secret))
    assert not leaks(line, secret)


@pytest.mark.parametrize("formatter", FORMATTERS, ids=["json", "plain"])
@pytest.mark.parametrize("before", [1015, MAX_LINE - 60])
def test_cutting_a_long_line_leaves_no_half_of_a_secret(
    formatter: logging.Formatter, before: int
) -> None:
    register_secret("hunter2hunter2")
    text = "x" * before + "hunter2hunter2" + "x" * MAX_LINE
    for made in (record(text), record("see", long=text), record("see", long=[text])):
        assert "hunter2" not in formatter.format(made)


@pytest.mark.parametrize("formatter", FORMATTERS, ids=["json", "plain"])
def test_a_key_in_pem_is_masked_line_by_line(formatter: logging.Formatter) -> None:
    register_secret(PEM)
    for made in (
        record(PEM),
        record("%r", PEM),
        raised(ValueError(PEM)),
        record(PEM.split("\n")[1]),
    ):
        assert "PlantedPlanted" not in formatter.format(made)


def test_bytes_that_are_no_text_are_masked() -> None:
    raw = bytes(range(128, 160))
    register_secret(raw)
    for text in (repr(raw), raw.hex(), base64.b64encode(raw).decode()):
        assert MASK in mask(text)


@given(st.binary(min_size=8, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_no_encoding_of_random_bytes_survives(raw: bytes, before: str, after: str) -> None:
    register_secret(raw)
    try:
        for form in (raw.hex(), base64.b64encode(raw).decode().rstrip("=")):
            assert form not in mask(f"{before} {form} {after}")
    finally:
        forget_secret(raw)


def test_a_value_inside_a_longer_one_does_not_break_it_apart() -> None:
    register_secret("secret")
    register_secret("secret-longer-value")
    assert mask("a secret-longer-value b") == f"a {MASK} b"


@pytest.mark.parametrize(
    "token",
    [
        "nct_0123456789abcdef",
        "nct_id_SECRET-part_42",
        "ncc_id_SECRET-part_42",
        "ncj_id_SECRET-part_42_0123abcd",
    ],
)
def test_what_looks_like_a_token_is_masked_unregistered(token: str) -> None:
    assert mask(f"Bearer {token}, and more") == f"Bearer {token[:4]}{MASK}, and more"


def test_short_values_tear_no_holes() -> None:
    register_secret("a")
    register_secret("")
    register_secret(b"ab")
    assert mask("a banana") == "a banana"


def test_a_value_registered_twice_is_masked_until_both_forget_it() -> None:
    register_secret("twice-planted")
    register_secret("twice-planted")
    forget_secret("twice-planted")
    assert mask("twice-planted") == MASK
    forget_secret("twice-planted")
    assert mask("twice-planted") == "twice-planted"


def test_forgetting_what_was_never_registered_is_harmless() -> None:
    forget_secret("never-planted")
    assert mask("never-planted") == "never-planted"

"""What the section ``dwcp.hde`` accepts."""

from __future__ import annotations

from typing import Any

import pytest

from novacron.config import ConfigInvalidError, load

ACCEPTED: list[tuple[str, Any]] = [
    ("codec", "auto"),
    ("codec", "off"),
    ("codec", "lz4"),
    ("codec", "zstd"),
    ("level", -7),
    ("level", 19),
    ("level_max", 1),
    ("cpu", 0.5),
    ("dictionary", "/etc/novacron/messages.zdict"),
    ("keep_messages", True),
]
REFUSED: list[tuple[str, Any]] = [
    ("codec", "gzip"),
    ("codec", "zstd:3"),
    ("level", 20),
    ("level", -8),
    ("level_max", 22),
    ("cpu", -1.0),
    ("cpu", 65.0),
]


def load_with(name: str, value: Any) -> Any:
    return load([], environ={}, overrides={f"dwcp.hde.{name}": value}).settings.dwcp.hde


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_a_value_is_taken(name: str, value: Any) -> None:
    assert getattr(load_with(name, value), name) == value


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_is_refused_by_its_key(name: str, value: Any) -> None:
    with pytest.raises(ConfigInvalidError, match=rf"dwcp\.hde\.{name}"):
        load_with(name, value)


def test_by_default_the_codec_is_chosen_and_no_message_is_kept() -> None:
    found = load([], environ={}).settings.dwcp.hde
    assert (found.codec, found.level_max, found.cpu) == ("auto", 9, 0.0)
    assert found.dictionary is None
    assert not found.keep_messages

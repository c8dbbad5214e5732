"""How a transfer is encoded: what the configuration says, and what may be said for one alone."""

from __future__ import annotations

import pytest

from novacron.config.schema import HdeSettings
from novacron.dwcp.amst.transport import Coding
from novacron.dwcp.hde.choice import chosen, default, fault_of


@pytest.mark.parametrize(
    ("settings", "coding"),
    [
        ({}, Coding("adaptive", "zstd", 3, level_max=9)),
        ({"level_max": 3}, Coding("adaptive", "zstd", 3, level_max=3)),
        ({"codec": "off"}, Coding("off", "zstd", 3, level_max=9)),
        ({"codec": "zstd", "level": 7}, Coding("fixed", "zstd", 7, level_max=9)),
        ({"codec": "lz4", "level": 7}, Coding("fixed", "lz4", 1, level_max=9)),
    ],
)
def test_the_configuration_says_how_by_default(settings: dict[str, object], coding: Coding) -> None:
    assert default(HdeSettings.model_validate(settings)) == coding


NODE = Coding("fixed", "zstd", 7, level_max=5)


@pytest.mark.parametrize(
    ("text", "coding"),
    [
        ("", NODE),
        ("auto", Coding("adaptive", "zstd", 7, level_max=5)),
        ("off", Coding("off", "zstd", 7, level_max=5)),
        ("zstd", NODE),
        ("zstd:-3", Coding("fixed", "zstd", -3, level_max=5)),
        ("zstd:19", Coding("fixed", "zstd", 19, level_max=5)),
        ("lz4", Coding("fixed", "lz4", 1, level_max=5)),
    ],
)
def test_a_transfer_may_have_it_otherwise(text: str, coding: Coding) -> None:
    assert fault_of(text) == ""
    assert chosen(text, NODE) == coding


def test_zstd_has_its_own_level_where_the_node_uses_lz4() -> None:
    assert chosen("zstd", Coding("fixed", "lz4", 1)).level == 3


@pytest.mark.parametrize(
    "text", ["gzip", "zstd:", "zstd:20", "zstd:-8", "lz4:2", "auto\n", "ZSTD", "zstd:³", "off:1"]
)
def test_anything_else_is_refused(text: str) -> None:
    assert fault_of(text)

"""The tables of docs/reference/amst-protocol.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.wire import AckKind, ErrorNumber, FrameType
from tests.dwcp.amst import reference
from tests.dwcp.amst.vector_files import FILES


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "reference" / "amst-protocol.md").read_text()


def table(page: str, heading: str, number: int = 0) -> list[list[str]]:
    """The rows of a table under *heading*, without its head."""
    section = page.split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tables[number].splitlines()[2:]
    ]


def test_the_layout_of_a_header_is_the_tables(page: str) -> None:
    rows = table(page, "## Frames")
    end = 0
    for offset, size, *_ in rows:
        assert int(offset) == end
        end += int(size)
    assert end == wire.HEADER_BYTES
    places = {name: (int(offset), int(size)) for offset, size, name, _ in rows}
    for name in reference.FIELDS:
        offset, size = places[name]
        data = reference.header({name: 2 ** (8 * size) - 1}, 0)
        changed = [place for place in range(60) if data[place] != reference.header({}, 0)[place]]
        assert changed == list(range(offset, offset + size)), name


@pytest.mark.parametrize(
    ("heading", "number", "kind"),
    [
        ("## Frames", 1, FrameType),
        ("### Acknowledgements", 1, AckKind),
        ("### Acknowledgements", 2, ErrorNumber),
    ],
)
def test_the_numbers_are_the_tables(
    page: str, heading: str, number: int, kind: type[FrameType | AckKind | ErrorNumber]
) -> None:
    assert {row[1]: int(row[0]) for row in table(page, heading, number)} == {
        member.name: member.value for member in kind
    }


def test_the_layout_of_an_acknowledgement_is_the_tables(page: str) -> None:
    rows = table(page, "### Acknowledgements")
    assert [int(offset) for offset, *_ in rows] == [0, 1, 4, 8, 12, 16, 24]
    assert sum(int(size) for _, size, *_ in rows) == wire.ACK_BYTES


def test_the_layout_of_a_hello_is_the_tables(page: str) -> None:
    sizes = [int(size) for _, size, _ in table(page, "## Hello")]
    assert sizes == [
        wire.HEADER_BYTES,
        wire.LINK_ID_BYTES,
        wire.HELLO_RANDOM_BYTES,
        wire.TAG_BYTES,
    ]
    assert sum(sizes) == wire.HELLO_BYTES == 112


def test_the_limits_are_the_tables(page: str) -> None:
    limits = dict(table(page, "## Limits"))
    assert wire.MAX_CHUNK_BYTES == 4 << 20
    assert wire.MIN_CHUNK_BYTES == 64 << 10
    assert "64 KiB to 4 MiB" in limits["content of a frame"]
    assert limits["payload of a frame without content"] == f"{wire.MAX_CONTROL_BYTES} bytes"
    assert limits["acknowledgements in a frame"] == str(wire.MAX_ACKS)
    assert limits["frames under one key"] == str(wire.EPOCH_FRAMES)
    assert limits["bytes under one key"] == f"{wire.EPOCH_BYTES >> 30} GiB"


def test_every_file_of_vectors_is_named(page: str) -> None:
    named = re.findall(r"`(\w+)\.json`", "".join(row[0] for row in table(page, "## Vectors")))
    assert sorted(named) == sorted(FILES)

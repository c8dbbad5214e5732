"""The index of one tenant."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.dwcp.hde.blocks.core import Block
from novacron.dwcp.hde.blocks.index import (
    CANDIDATES,
    BlockIndex,
    Stamp,
    file_name,
    open_index,
    tenant_of,
)

STAMP = Stamp(1000, 5, 6, 42)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[BlockIndex]:
    found = open_index(tmp_path, "acme")
    yield found
    found.close()


def some(count: int, seed: int = 0) -> list[Block]:
    return [
        (number * 100, 100, number.to_bytes(8, "big") + bytes([seed]) * 24)
        for number in range(seed * 1000, seed * 1000 + count)
    ]


def add(index: BlockIndex, path: bytes, blocks: list[Block], stamp: Stamp = STAMP) -> int:
    file = index.begin(path, stamp)
    index.add(file, blocks)
    index.complete(file)
    return file


def test_blocks_are_found_where_they_were_put(index: BlockIndex) -> None:
    assert index.empty
    blocks = some(10)
    file = add(index, b"/a", blocks)
    assert not index.empty
    found = index.find([digest for _, _, digest in blocks] + [b"\xff" * 32])
    assert [[(p.file, p.path, p.stamp, p.offset, p.size) for p in places] for places in found] == [
        *[[(file, b"/a", STAMP, offset, size)] for offset, size, _ in blocks],
        [],
    ]
    assert index.knows(b"/a", STAMP)
    assert not index.knows(b"/a", STAMP._replace(mtime_ns=6))
    assert not index.knows(b"/b", STAMP)


def test_of_a_block_that_lies_in_many_places_a_few_are_told(index: BlockIndex) -> None:
    [block] = some(1)
    for number in range(CANDIDATES + 3):
        add(index, b"/%d" % number, [block])
    [places] = index.find([block[2]])
    assert len(places) == CANDIDATES


def test_a_file_that_is_indexed_anew_replaces_what_was_known_of_its_path(
    index: BlockIndex,
) -> None:
    add(index, b"/a", some(5))
    add(index, b"/a", some(5, 1), STAMP._replace(inode=43))
    assert index.find([digest for _, _, digest in some(5)]) == [[]] * 5
    assert all(index.find([digest for _, _, digest in some(5, 1)]))
    assert index.facts().files == 1


def test_what_is_forgotten_is_not_found(index: BlockIndex) -> None:
    file = add(index, b"/a", some(5))
    places = [places[0] for places in index.find([digest for _, _, digest in some(2)])]
    index.forget_places(places)
    assert [bool(p) for p in index.find([d for _, _, d in some(5)])] == [False] * 2 + [True] * 3
    index.forget([file])
    assert index.empty
    index.add(file, some(5))  # by whoever was indexing it
    assert index.empty
    assert not index.has_path(b"/a")


def test_the_file_that_was_of_no_use_for_longest_goes_first(index: BlockIndex) -> None:
    first, second = add(index, b"/a", some(5)), add(index, b"/b", some(5, 1))
    index.touch([first])
    assert index.evict()
    assert index.has_path(b"/a")
    assert not index.has_path(b"/b")
    assert second != first
    assert index.evict()
    assert not index.evict()


def test_an_index_gives_back_the_room_of_what_it_forgets(index: BlockIndex) -> None:
    empty = index.size_bytes()
    add(index, b"/a", some(20_000))
    full = index.size_bytes()
    assert full > empty + 20_000 * 20
    index.clear()
    assert index.size_bytes() < empty + 65536
    assert index.path.stat().st_size < full


def test_it_is_there_again_after_a_restart_but_for_what_was_not_complete(tmp_path: Path) -> None:
    first = open_index(tmp_path, "acme")
    add(first, b"/a", some(3))
    half = first.begin(b"/half", STAMP)
    first.add(half, some(3, 1))
    first.close()
    second = open_index(tmp_path, "acme")
    assert second.has_path(b"/a")
    assert not second.has_path(b"/half")
    assert second.facts().tenant == "acme"
    second.close()
    assert (second.path.stat().st_mode & 0o777) == 0o600


@pytest.mark.parametrize(
    "damage",
    [b"no database at all" * 100, b"", b"SQLite format 3\0" + bytes(4000)],
)
def test_one_that_is_damaged_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    index = open_index(tmp_path, "acme")
    add(index, b"/a", some(3))
    index.close()
    index.path.write_bytes(damage)
    again = open_index(tmp_path, "acme")
    assert again.empty
    add(again, b"/a", some(3))
    again.close()


def test_one_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    index = open_index(tmp_path, "acme")
    add(index, b"/a", some(3))
    index.close()
    connection = sqlite3.connect(index.path)
    with connection:
        connection.execute("UPDATE facts SET value = '99' WHERE name = 'scheme'")
    connection.close()
    again = open_index(tmp_path, "acme")
    assert again.empty
    again.close()


def test_an_index_that_was_put_in_the_place_of_another_tenants_is_not_used(tmp_path: Path) -> None:
    theirs = open_index(tmp_path, "theirs")
    add(theirs, b"/secret", some(3))
    theirs.close()
    os.rename(theirs.path, tmp_path / file_name("ours"))
    assert tenant_of(tmp_path / file_name("ours")) is None
    ours = open_index(tmp_path, "ours")
    assert ours.empty
    ours.close()


def test_no_name_of_a_tenant_leads_anywhere_else(tmp_path: Path) -> None:
    names = {file_name(name) for name in ("a", "A", "../a", "/etc/passwd", "a/b", "ä" * 60)}
    assert len(names) == 6
    assert all("/" not in name and len(name) < 64 for name in names)

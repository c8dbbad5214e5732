"""What fills the indexes of a node, and what bounds them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from novacron.config.schema import HdeSettings
from novacron.dwcp.hde.blocks import library as library_module
from novacron.dwcp.hde.blocks.cutting import find_cut
from novacron.dwcp.hde.blocks.index import Stamp, file_name
from novacron.dwcp.hde.blocks.library import BlockLibrary
from novacron.units import MIB
from tests.network.conftest import until


@asynccontextmanager
async def running(directory: Path, **settings: object) -> AsyncIterator[BlockLibrary]:
    found = HdeSettings.model_validate({"dedup_min_bytes": 256 * 1024, **settings})
    library = BlockLibrary(directory / "blocks", found, *find_cut())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(library.run)
            yield library
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(library.close)


async def idle(library: BlockLibrary) -> None:
    await until(lambda: library.statistics()["files_waiting"] == 0, within=30)


def make(path: Path, size: int, seed: int = 1) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def known(library: BlockLibrary, tenant: str, path: Path) -> bool:
    with library.index_of(tenant) as index:
        return index is not None and index.has_path(os.fsencode(path))


async def test_a_received_file_is_indexed_for_its_tenant_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "a", 2 * MIB)
    async with running(tmp_path) as library:
        library.offer("acme", str(path), 2 * MIB)
        await idle(library)
        assert known(library, "acme", path)
        assert not known(library, "other", path)
        # Asking makes none: whoever names tenants does not fill the disk.
        assert [found.name for found in (tmp_path / "blocks").glob("*.sqlite")] == [
            file_name("acme")
        ]
        statistics = library.statistics()
        assert statistics["blocks_indexed"] >= 2 * MIB // (256 * 1024)
        assert statistics["index_bytes"] > 0


async def test_small_files_and_those_that_are_gone_are_left_out(tmp_path: Path) -> None:
    async with running(tmp_path) as library:
        library.offer("acme", str(make(tmp_path / "small", 1000)), 1000)
        library.offer("acme", str(tmp_path / "gone"), MIB)
        (tmp_path / "link").symlink_to(make(tmp_path / "a", MIB))
        library.offer("acme", str(tmp_path / "link"), MIB)
        await idle(library)
        assert not any((tmp_path / "blocks").glob("*.sqlite"))


async def test_where_files_are_not_deduplicated_nothing_is_indexed(tmp_path: Path) -> None:
    path = make(tmp_path / "a", MIB)
    async with running(tmp_path, dedup="never") as library:
        library.offer("acme", str(path), MIB)
        assert library.statistics()["files_waiting"] == 0
        assert not library.usable


async def test_a_node_that_cannot_cut_says_why(tmp_path: Path) -> None:
    library = BlockLibrary(tmp_path / "blocks", HdeSettings(), None, "the extension is missing")
    assert not library.usable
    assert library.statistics()["dedup"] == "never"
    assert library.statistics()["why"] == "the extension is missing"
    library.offer("acme", str(make(tmp_path / "a", 8 * MIB)), 8 * MIB)
    assert library.statistics()["files_waiting"] == 0


async def test_no_more_files_wait_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "MAX_QUEUE", 3)
    library = BlockLibrary(tmp_path / "blocks", HdeSettings(), *find_cut())
    for number in range(5):
        library.offer("acme", f"/{number}", 8 * MIB)
    assert library.statistics()["files_waiting"] == 3
    assert library.statistics()["files_skipped"] == 2


async def test_all_indexes_together_stay_below_their_limit(tmp_path: Path) -> None:
    """1 MiB holds some 10 000 blocks."""
    paths = [make(tmp_path / str(number), 4 * MIB, number) for number in range(3)]
    async with running(tmp_path, index_max_bytes=1024**2) as library:
        for number, path in enumerate(paths):
            library.offer(f"tenant-{number}", str(path), 4 * MIB)
        await idle(library)
        assert library.statistics()["index_bytes"] <= MIB
        for number in range(3):
            with library.index_of(f"tenant-{number}") as index:
                assert index is not None
                file = index.begin(b"/big", Stamp.of(paths[0].stat()))
                index.add(file, [(i * 100, 100, os.urandom(32)) for i in range(8000)])
                index.complete(file)
        library.offer("tenant-0", str(make(tmp_path / "last", 4 * MIB, 9)), 4 * MIB)
        await idle(library)
        assert library.statistics()["index_bytes"] <= MIB
        # What was of no use for longest went, whosever it was; what was indexed last is there.
        assert not known(library, "tenant-0", paths[0])
        assert known(library, "tenant-0", tmp_path / "last")


async def test_only_so_many_tenants_have_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "MAX_TENANTS", 2)
    path = make(tmp_path / "a", MIB)
    async with running(tmp_path) as library:
        for number in range(4):
            library.offer(f"tenant-{number}", str(path), MIB)
            await idle(library)
        assert len(list((tmp_path / "blocks").glob("*.sqlite"))) == 2
        assert known(library, "tenant-3", path)
        assert not known(library, "tenant-0", path)


async def test_an_index_that_is_damaged_while_it_is_used_is_thrown_away(tmp_path: Path) -> None:
    path = make(tmp_path / "a", 2 * MIB)
    async with running(tmp_path) as library:
        library.offer("acme", str(path), 2 * MIB)
        await idle(library)
        library.close()
    file = tmp_path / "blocks" / file_name("acme")
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    async with running(tmp_path) as library:
        assert not known(library, "acme", path)
        library.offer("acme", str(path), 2 * MIB)
        await idle(library)
        assert known(library, "acme", path)


async def test_a_file_that_changes_while_it_is_indexed_is_forgotten(tmp_path: Path) -> None:
    path = make(tmp_path / "a", 80 * MIB)
    async with running(tmp_path) as library:
        looked = []

        def go_on() -> bool:
            looked.append(1)
            os.utime(path, ns=(len(looked), len(looked)))
            return True

        await library.index_file("acme", str(path), go_on=go_on)
        assert len(looked) > 1
        assert not known(library, "acme", path)


async def test_what_is_indexed_can_be_seen_and_cleared(tmp_path: Path) -> None:
    path = make(tmp_path / "a", 2 * MIB)
    async with running(tmp_path) as library:
        for tenant in ("acme", "other"):
            library.offer(tenant, str(path), 2 * MIB)
        await idle(library)
    async with running(tmp_path) as library:
        facts = {found.tenant: found for found in library.facts()}
        assert set(facts) == {"acme", "other"}
        assert facts["acme"].files == 1
        assert facts["acme"].indexed_bytes == 2 * MIB
        library.clear("acme")
        assert not known(library, "acme", path)
        assert known(library, "other", path)
        library.clear(None)
        assert not known(library, "other", path)

"""Files of which the receiver holds a part already, in other files."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.config.schema import HdeSettings
from novacron.dwcp.amst import telling
from novacron.dwcp.amst.block_messages import AskDedup, Blocks, BlocksHeld, Dedup
from novacron.dwcp.amst.transfer import Transfer
from novacron.dwcp.amst.transfers import ReceiveRequest
from novacron.dwcp.hde.blocks.core import SCHEME
from novacron.dwcp.hde.blocks.metrics import DEDUPLICATED
from novacron.errors import NovaCronError
from novacron.units import MIB
from tests.dwcp.amst.pair import CHUNK, Pair, digest, pair
from tests.network.authority import Certificates

MakeCertificates = Callable[[int], Certificates]
SIZE = 6 * MIB + 123
BESIDE = 2 * SCHEME.maximum + 2 * CHUNK
"""What a change of a few bytes costs at most: two blocks, and the chunks at their ends."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@asynccontextmanager
async def two(
    tmp_path: Path, certificates: MakeCertificates, **settings: Any
) -> AsyncIterator[Pair]:
    hde = HdeSettings(**{"dedup": "always", "dedup_min_bytes": 256 * 1024, **settings})
    async with pair(tmp_path, certificates, hde=hde) as nodes:
        yield nodes


async def sent(nodes: Pair, path: Path, to: str = "", **options: Any) -> Transfer:
    """Whole, compared, and indexed at the receiver."""
    transfer = await nodes.send(path, to=to, **options)
    await transfer.wait()
    assert digest(nodes.b.files / (to or path.name)) == digest(path)
    await nodes.b.wait_indexed()
    view = transfer.view()
    assert view.bytes_done == path.stat().st_size
    assert view.bytes_moved + view.bytes_zero + view.bytes_deduplicated <= view.bytes_done
    other = next(found for found in nodes.b.transfers.transfers() if found.id == transfer.id)
    assert other.view().bytes_deduplicated == view.bytes_deduplicated
    return transfer


async def test_of_a_version_that_was_edited_in_place_only_what_changed_moves(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        first = await sent(nodes, image)
        assert (first.view().bytes_moved, first.view().bytes_deduplicated) == (SIZE, 0)
        with image.open("r+b") as file:
            file.seek(3 * MIB)
            file.write(os.urandom(500))
        view = (await sent(nodes, image, overwrite=True)).view()
        assert 0 < view.bytes_moved <= BESIDE
        assert view.bytes_deduplicated >= SIZE - BESIDE
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_of_content_that_shifted_only_what_is_new_moves(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        image.write_bytes(os.urandom(1000) + image.read_bytes())
        view = (await sent(nodes, image, overwrite=True)).view()
        assert 0 < view.bytes_moved <= BESIDE


async def test_a_clone_under_another_name_does_not_move(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    before = DEDUPLICATED.values.get(("sent",), 0)
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        view = (await sent(nodes, image, to="vm-2/clone.img")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (0, SIZE)
    assert DEDUPLICATED.values[("sent",)] == before + SIZE


async def test_a_file_that_is_overwritten_serves_although_it_was_never_indexed(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        (nodes.b.files / image.name).write_bytes(image.read_bytes())
        view = (await sent(nodes, image, overwrite=True)).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (0, SIZE)


async def test_holes_stay_holes_among_blocks_that_are_found(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    sparse = tmp_path / "sparse.img"
    with sparse.open("wb") as file:
        file.truncate(64 * MIB)
        for place in (MIB // 2, 40 * MIB + 17):
            file.seek(place)
            file.write(os.urandom(MIB))
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, sparse)
        view = (await sent(nodes, sparse, to="clone.img")).view()
        assert view.bytes_moved == 0
        assert 2 * MIB <= view.bytes_deduplicated < 3 * MIB
        assert view.bytes_zero > 60 * MIB
        assert (nodes.b.files / "clone.img").stat().st_blocks * 512 < 4 * MIB


async def test_another_tenant_gets_no_hit_whether_it_copies_or_overwrites(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image, tenant="acme")
        for tenant, to in (("other", "copy.img"), ("", "default.img")):
            view = (await sent(nodes, image, to=to, tenant=tenant)).view()
            assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0), tenant
        (nodes.b.files / "copy.img").unlink()
        for tenant in ("", "other", "acme"):
            view = (await sent(nodes, image, tenant=tenant, overwrite=True)).view()
            # The default one has default.img still; nobody has anything of what is overwritten,
            # which is another tenant's each time.
            assert view.bytes_deduplicated == (0 if tenant else SIZE), tenant


async def test_a_file_that_changed_after_it_was_indexed_does_no_harm(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        (nodes.b.files / image.name).write_bytes(os.urandom(SIZE))
        view = (await sent(nodes, image, to="copy.img")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)
        (nodes.b.files / "copy.img").unlink()
        view = (await sent(nodes, image, to="again.img")).view()
        assert view.bytes_deduplicated == 0


async def test_a_block_that_is_damaged_is_moved_and_the_others_are_not(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    """The damage shows in nothing but the content."""
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        arrived = nodes.b.files / image.name
        stamp = arrived.stat()
        with arrived.open("r+b") as file:
            file.seek(2 * MIB)
            file.write(b"damaged!")
        os.utime(arrived, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        library = nodes.b.transfers.blocks
        assert library is not None
        with library.index_of("default") as index:
            assert index is not None
            with index._connection as connection:
                changed = arrived.stat().st_ctime_ns
                connection.execute("UPDATE files SET ctime_ns = ?", (changed,))
        view = (await sent(nodes, image, to="copy.img")).view()
        assert 0 < view.bytes_moved <= BESIDE
        assert view.bytes_deduplicated >= SIZE - BESIDE


async def test_what_is_too_small_or_not_to_be_looked_for_moves_whole(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    small = tmp_path / "small.img"
    small.write_bytes(image.read_bytes()[: 200 * 1024])
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        await sent(nodes, small)
        assert (await sent(nodes, small, to="b.img")).view().bytes_moved == 200 * 1024
        view = (await sent(nodes, image, to="c.img", dedup="never")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)
        # Nodes of one host move as fast as they hash.
        view = (await sent(nodes, image, to="d.img", dedup="auto")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)


async def test_whoever_has_a_file_sent_here_says_whose_it_is(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        kept = nodes.a.files / "kept.img"
        kept.write_bytes(image.read_bytes())

        async def receive(path: str, tenant: str, dedup: str = "") -> int:
            transfer = await nodes.b.transfers.receive(
                ReceiveRequest(
                    node=nodes.a.id, paths=("kept.img",), path=path, tenant=tenant, dedup=dedup
                )
            )
            await transfer.wait()
            await nodes.b.wait_indexed()
            assert digest(nodes.b.files / path) == digest(kept)
            return transfer.view().bytes_deduplicated

        assert await receive("1.img", "acme") == 0
        assert await receive("2.img", "other") == 0
        assert await receive("3.img", "acme", "never") == 0
        assert await receive("4.img", "acme") == SIZE


async def test_whoever_sends_decides_whether_it_hashes_for_others(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        kept = nodes.a.files / "kept.img"
        kept.write_bytes(image.read_bytes())
        await sent(nodes, image)

        async def receive(path: str, dedup: str) -> int:
            transfer = await nodes.b.transfers.receive(
                ReceiveRequest(node=nodes.a.id, paths=("kept.img",), path=path, dedup=dedup)
            )
            await transfer.wait()
            return transfer.view().bytes_deduplicated

        library = nodes.a.transfers.blocks
        assert library is not None
        for policy, wanted, found in (
            ("never", "always", 0),
            ("auto", "auto", 0),  # both are on this host
            ("auto", "always", SIZE),
            ("always", "auto", SIZE),
            ("always", "never", 0),
        ):
            library.settings = HdeSettings(dedup=policy, dedup_min_bytes=256 * 1024)
            assert await receive(f"{policy}-{wanted}.img", wanted) == found, (policy, wanted)


async def test_between_hosts_it_is_looked_until_nothing_is_found_for_long(
    tmp_path: Path, certificates: MakeCertificates, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "MAX_BLOCKS", 8)
    monkeypatch.setattr(telling, "_GIVE_UP_BYTES", 2 * MIB)
    new = tmp_path / "new.img"
    new.write_bytes(os.urandom(SIZE))
    async with two(tmp_path, certificates, dedup="auto") as nodes:
        monkeypatch.setattr(nodes.a.transfers._host.asking, "on_this_host", lambda peer: False)
        handler = nodes.b.node.network._handlers["amst.blocks"]
        told = []

        async def count(session: Any, body: bytes) -> bytes:
            told.append(body)
            return await handler(session, body)

        nodes.b.node.network._handlers["amst.blocks"] = count
        # There is nothing at the receiver to look at, and it is not asked.
        assert (await sent(nodes, image)).view().bytes_moved == SIZE
        assert told == []
        assert (await sent(nodes, image, to="copy.img")).view().bytes_deduplicated == SIZE
        all_pages = len(told)
        told.clear()
        assert (await sent(nodes, new)).view().bytes_moved == SIZE
        assert 1 <= len(told) < all_pages / 2


# Nodes of other versions ------------------------------------------------------------------------


async def test_a_receiver_that_knows_nothing_of_blocks_gets_everything(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        for method in ("amst.dedup", "amst.blocks"):
            nodes.b.node.network.remove_handler(method)
        view = (await sent(nodes, image, to="copy.img", tenant="acme")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)


async def test_a_sender_that_knows_nothing_of_blocks_is_asked_for_none(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        nodes.a.transfers._host.blocks = None
        view = (await sent(nodes, image, to="copy.img")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)


async def test_nodes_that_cut_in_different_ways_move_everything(
    tmp_path: Path, certificates: MakeCertificates, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        monkeypatch.setattr(telling, "SCHEME", SCHEME._replace(number=2))
        view = (await sent(nodes, image, to="copy.img")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)


# Interruptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 5])
async def test_a_receiver_that_dies_while_it_fills_goes_on_and_ends_up_right(
    tmp_path: Path,
    certificates: MakeCertificates,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
) -> None:
    monkeypatch.setattr(telling, "MAX_BLOCKS", 10)
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        with image.open("r+b") as file:
            file.write(b"a new beginning")
        handler = nodes.b.node.network._handlers["amst.blocks"]
        pages = 0
        died = trio.Event()

        async def dies(session: Any, body: bytes) -> bytes:
            nonlocal pages
            pages += 1
            if pages == page:
                nodes.nursery.start_soon(die_and_come_back)
            return await handler(session, body)

        async def die_and_come_back() -> None:
            await nodes.b.die()
            died.set()
            await nodes.revive(nodes.b)

        nodes.b.node.network._handlers["amst.blocks"] = dies
        view = (await sent(nodes, image, overwrite=True)).view()
        assert died.is_set()
        assert view.bytes_moved <= BESIDE
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_what_was_filled_is_on_record_and_is_not_looked_for_again(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        image.write_bytes(image.read_bytes()[: SIZE // 2] + os.urandom(SIZE // 2))
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(image, to="second.img")
        await nodes.wait_moved(transfer, 4 * CHUNK)
        found = transfer.view().bytes_deduplicated
        assert found >= SIZE // 2 - BESIDE
        await nodes.b.die()
        nodes.wires.faults.chunk_delay = 0
        await nodes.revive(nodes.b)
        await transfer.wait()
        assert digest(nodes.b.files / "second.img") == digest(image)
        # What the second attempt found is no more than what the first had not put on record.
        assert found <= transfer.view().bytes_deduplicated <= SIZE // 2 + BESIDE


async def test_a_source_that_changes_after_its_blocks_were_told_is_told_again(
    tmp_path: Path, certificates: MakeCertificates, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        handler = nodes.b.node.network._handlers["amst.have"]
        changed = []

        async def changes(session: Any, body: bytes) -> bytes:
            if not changed:
                changed.append(1)
                with image.open("r+b") as file:
                    file.seek(MIB)
                    file.write(os.urandom(1000))
                os.utime(image, ns=(5, 5))
            return await handler(session, body)

        nodes.b.node.network._handlers["amst.have"] = changes
        await sent(nodes, image, to="copy.img", on_change="restart")
        assert changed


# Hostile peers ----------------------------------------------------------------------------------


def lying(monkeypatch: pytest.MonkeyPatch, change: Callable[[Blocks], Blocks]) -> None:
    monkeypatch.setattr(telling, "Blocks", lambda *fields: change(Blocks(*fields)))


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page._replace(places=page.places + b"\x00\x01"),
        lambda page: page._replace(places=page.places[:-1]),
        lambda page: page._replace(digests=page.digests[:-1]),
        lambda page: page._replace(digests=b"", places=b"", end=0, last=False),
        lambda page: page._replace(end=SIZE + 1),
        lambda page: page._replace(end=page.begin),
        lambda page: page._replace(begin=page.begin + 1),
        lambda page: page._replace(entry=page.entry + 1),
        lambda page: page._replace(transfer=bytes(16)),
    ],
)
async def test_a_page_that_cannot_be_is_refused_and_the_node_goes_on(
    tmp_path: Path,
    certificates: MakeCertificates,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Blocks], Blocks],
) -> None:
    async with two(tmp_path, certificates, tenant="acme") as nodes:
        await sent(nodes, image)
        with monkeypatch.context() as patch:
            lying(patch, change)
            transfer = await nodes.send(image, to="copy.img")
            with trio.move_on_after(0.5):
                with pytest.raises(NovaCronError):
                    await transfer.wait()
            assert transfer.state != "done"
            await transfer.cancel()
        assert not (nodes.b.files / "copy.img").exists()
        view = (await sent(nodes, image, to="copy.img")).view()
        assert view.bytes_deduplicated == SIZE


async def test_digests_of_what_is_not_there_are_believed_by_nobody(
    tmp_path: Path, certificates: MakeCertificates, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first eight bytes are what an index finds, the others are right only with the content."""
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)

        def forge(page: Blocks) -> Blocks:
            digests = bytearray(page.digests)
            for index in range(0, len(digests), 32):
                digests[index + 8] ^= 1
            return page._replace(digests=bytes(digests))

        lying(monkeypatch, forge)
        view = (await sent(nodes, image, to="copy.img")).view()
        assert (view.bytes_moved, view.bytes_deduplicated) == (SIZE, 0)


async def test_blocks_told_in_wrong_places_do_not_stay_there(
    tmp_path: Path, certificates: MakeCertificates, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)

        def swap(page: Blocks) -> Blocks:
            half = len(page.digests) // 64 * 32
            return page._replace(digests=page.digests[half:] + page.digests[:half])

        lying(monkeypatch, swap)
        await sent(nodes, image, to="copy.img")


async def test_blocks_are_taken_when_they_were_asked_for_and_at_no_other_time(
    tmp_path: Path, certificates: MakeCertificates, image: Path
) -> None:
    async with two(tmp_path, certificates) as nodes:
        await sent(nodes, image)
        nodes.wires.faults.chunk_delay = 0.05
        transfer = await nodes.send(image, to="copy.img", dedup="never", tenant="acme")
        await nodes.wait_moved(transfer, CHUNK)
        ask = nodes.a.transfers._host.asking.ask
        page = Blocks(transfer.id, 0, 0, SIZE, b"", b"", True)
        for _ in range(200):
            answer = await ask(nodes.b.id, "amst.blocks", page, BlocksHeld)
            assert answer.trouble is not None
            assert answer.trouble.code == "dwcp.message"
        for tenant in ("", "a\nb", "x" * 1000):
            with pytest.raises(NovaCronError):
                await ask(
                    nodes.b.id,
                    "amst.dedup",
                    AskDedup(transfer.id, tenant, "always", 1, 0),
                    Dedup,
                )
        nodes.wires.faults.chunk_delay = 0
        await transfer.wait()

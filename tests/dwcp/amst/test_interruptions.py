"""Links that are lost and nodes that die: a transfer goes on from what is durable at the receiver."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio

from novacron.dwcp.amst import arriving
from novacron.dwcp.amst.errors import PeerUnreachableError
from novacron.dwcp.amst.memory import MemoryLink
from novacron.dwcp.amst.receiving import Incoming
from novacron.dwcp.amst.transfer import Transfer
from novacron.network.errors import PeerUnknownError
from tests.dwcp.amst.pair import CHUNK, OneSide, Pair, digest, pair, random_file
from tests.network.authority import Certificates
from tests.network.conftest import until

MakeCertificates = Callable[[int], Certificates]


@pytest.fixture(autouse=True)
def eager_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test does not take seconds; everything is recorded soon."""
    monkeypatch.setattr(arriving, "CHECKPOINT_SECONDS", 0.01)
    monkeypatch.setattr(arriving, "_LOOK_SECONDS", 0.01)


async def wait_recorded(nodes: Pair, size: int) -> None:
    """Until the receiver's journals are of so many bytes."""
    await until(lambda: sum(path.stat().st_size for path in nodes.b.journals()) >= size, within=30)


async def test_a_lost_link_is_made_again_and_only_what_is_missing_moves(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK + 5)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.lose_after = 25
        transfer = await nodes.send(source)
        await transfer.wait()
        assert nodes.wires.made == 2
        assert digest(nodes.b.files / "f") == digest(source)
        # A link that ends is no crash: what came is recorded before its files are let go.
        assert transfer.view().bytes_moved == 60 * CHUNK + 5
        assert nodes.b.parts() == nodes.b.journals() == []


@pytest.mark.parametrize("seed", range(6))
async def test_a_link_lost_again_and_again_costs_no_byte_and_no_file(
    tmp_path: Path, certificates: MakeCertificates, seed: int
) -> None:
    chooser = random.Random(seed)
    root = tmp_path / "vm"
    for number in range(chooser.randint(1, 12)):
        random_file(root / f"{number % 3}" / f"{number}", chooser.randrange(20 * CHUNK))
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.lose_after = chooser.randint(1, 10)
        transfer = await nodes.send(root)
        while not transfer.ended:
            await transfer.wait_changed()
            if nodes.wires.faults.lose_after is None and nodes.wires.made < 8:
                nodes.wires.faults.lose_after = chooser.randint(1, 20)
        await transfer.wait()
        for path in root.rglob("*"):
            if path.is_file():
                assert digest(nodes.b.files / path.relative_to(tmp_path)) == digest(path)
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_a_link_lost_at_every_single_chunk_in_turn(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 12 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        for chunk in range(1, 13):
            nodes.wires.faults.lose_after = chunk
            transfer = await nodes.send(source, to=f"at-{chunk}")
            await transfer.wait()
            assert digest(nodes.b.files / f"at-{chunk}") == digest(source)
            assert transfer.view().bytes_moved == 12 * CHUNK
            nodes.wires.lose("the next one begins with a new link")


async def test_a_receiver_that_dies_goes_on_from_its_journal(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 100 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 30 * CHUNK)
        await wait_recorded(nodes, 600)
        await nodes.b.die()
        moved = transfer.progress().moved_bytes
        nodes.wires.faults.chunk_delay = 0.0
        await nodes.revive(nodes.b)
        assert [found.state for found in nodes.b.transfers.transfers()] == ["waiting"]
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        again = transfer.view().bytes_moved - 100 * CHUNK
        assert 0 <= again < moved
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_no_more_is_sent_again_than_was_not_on_record(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 100 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 40 * CHUNK)
        await nodes.pause(transfer)
        moved = transfer.progress().moved_bytes
        (found,) = cast(Incoming, nodes.received()).reception._objects.values()
        await until(lambda: found.held * CHUNK >= transfer.progress().moved_bytes)
        await nodes.b.die()
        await nodes.revive(nodes.b)
        await transfer.resume()
        await transfer.wait()
        assert transfer.view().bytes_moved == 100 * CHUNK
        assert moved >= 40 * CHUNK


async def test_a_sender_that_dies_goes_on_by_itself_when_it_is_back(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 80 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source, limit_bps=1 << 30)
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.a.die()
        received = nodes.received()
        await nodes.wait_state(received, "waiting")
        assert received.progress().moved_bytes < 80 * CHUNK
        nodes.wires.faults.chunk_delay = 0.0
        await nodes.revive(nodes.a)
        (again,) = nodes.a.transfers.transfers()
        assert again.id == transfer.id
        await again.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert received.view().bytes_moved == 80 * CHUNK


@pytest.mark.parametrize("seed", range(4))
async def test_both_ends_die_at_any_moment_and_every_file_arrives(
    tmp_path: Path, certificates: MakeCertificates, seed: int
) -> None:
    chooser = random.Random(seed)
    root = tmp_path / "vm"
    for number in range(30):
        random_file(root / f"{number}", chooser.choice((0, 100, CHUNK, 9 * CHUNK)))
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.002
        await nodes.send(root)
        for _ in range(5):
            await trio.sleep(chooser.random() * 0.2)
            side = chooser.choice((nodes.a, nodes.b))
            await side.die()
            await nodes.revive(side)
        nodes.wires.faults.chunk_delay = 0.0
        (transfer,) = nodes.a.transfers.transfers()
        if not transfer.ended:
            await transfer.wait()
        assert transfer.state == "done"
        for path in root.iterdir():
            assert digest(nodes.b.files / "vm" / path.name) == digest(path)
        assert nodes.b.parts() == []


async def test_a_node_that_stops_records_what_came(
    tmp_path: Path, certificates: MakeCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "CHECKPOINT_SECONDS", 3600)
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.pause(transfer)
        await nodes.b.stop()
        nodes.wires.lose()
        await nodes.revive(nodes.b)
        nodes.wires.faults.chunk_delay = 0.0
        await transfer.resume()
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert transfer.view().bytes_moved == 60 * CHUNK


async def test_a_part_that_is_not_what_its_journal_says_is_sent_again(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.pause(transfer)
        await nodes.b.stop()
        nodes.wires.lose()
        (part,) = nodes.b.parts()
        with part.open("r+b") as file:
            file.seek(5 * CHUNK + 1)
            file.write(b"damaged")
            file.seek(9 * CHUNK)
            file.write(b"here too")
        await nodes.revive(nodes.b)
        nodes.wires.faults.chunk_delay = 0.0
        await transfer.resume()
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert transfer.view().bytes_moved == 62 * CHUNK


async def test_a_source_that_is_not_what_was_sent_is_noticed_though_it_says_it_is(
    tmp_path: Path, certificates: MakeCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.dwcp.amst.sources.identity_of", lambda found: bytes(32))
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.pause(transfer)
        nodes.wires.lose()
        with source.open("r+b") as file:
            file.seek(3 * CHUNK)
            file.write(b"another content")
        nodes.wires.faults.chunk_delay = 0.0
        await transfer.resume()
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert transfer.view().bytes_moved == 61 * CHUNK


async def test_files_that_are_finished_are_not_sent_again(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    root = tmp_path / "vm"
    for number in range(20):
        random_file(root / f"{number:02}", 2 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(root)
        await until(lambda: transfer.files_done >= 5, within=30)
        await nodes.b.die()
        await nodes.revive(nodes.b)
        await transfer.wait()
        assert transfer.view().files_done == 21
        assert transfer.view().bytes_moved < 40 * CHUNK + 20 * CHUNK
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_files_that_come_and_go_between_two_attempts_do_not_disturb_the_others(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    root = tmp_path / "vm"
    for name in ("b", "c"):
        random_file(root / name, 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(root)
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.pause(transfer)
        nodes.wires.lose()
        random_file(root / "a", CHUNK)
        nodes.wires.faults.chunk_delay = 0.0
        await transfer.resume()
        await transfer.wait()
        for path in root.iterdir():
            assert digest(nodes.b.files / "vm" / path.name) == digest(path)
        assert transfer.view().bytes_moved == 81 * CHUNK


async def test_an_interruption_that_lasts_too_long_fails_and_says_how_to_go_on(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 30 * CHUNK)
    async with pair(tmp_path, certificates, retry_for=0.3) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await nodes.b.die()
        with pytest.raises(PeerUnreachableError) as caught:
            await transfer.wait()
        assert caught.value.key == "dwcp.amst.retry_for"
        assert transfer.view().state == "failed"
        assert "send it again" in transfer.view().remedy
        await nodes.revive(nodes.b)
        nodes.wires.faults.chunk_delay = 0.0
        again = await nodes.send(source)
        assert again.id == transfer.id
        await again.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert nodes.received().view().bytes_moved < 30 * CHUNK
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_what_ended_is_told_of_after_a_restart(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        done = await nodes.send(source)
        await done.wait()
        failed = await nodes.send(source)  # it is there already
        with pytest.raises(Exception, match="was not sent"):
            await failed.wait()
        await nodes.a.die()
        await nodes.revive(nodes.a)
        views = {view.id: view for view in nodes.a.transfers.list()}
        assert views[done.id.hex()].state == "done"
        assert views[done.id.hex()].bytes_done == CHUNK
        assert views[failed.id.hex()].state == "failed"
        assert "there already" in views[failed.id.hex()].why
        with pytest.raises(Exception, match="there already"):
            await nodes.a.transfers.find(failed.id.hex()).wait()


async def test_a_record_that_cannot_be_read_is_set_aside(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        outgoing = nodes.a.data / "dwcp" / "outgoing"
        await nodes.a.die()
        damaged = outgoing / ("ab" * 16 + ".json")
        damaged.write_bytes(b"\0" * 100)
        other = outgoing / ("cd" * 16 + ".json")
        other.write_text(json.dumps({"format": 99}))
        await nodes.revive(nodes.a)
        assert nodes.a.transfers.list() == []
        assert sorted(os.listdir(outgoing)) == [
            f"{damaged.name}.unreadable",
            f"{other.name}.unreadable",
        ]


async def test_partial_files_that_nobody_continues_are_swept(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 30 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await nodes.a.die()
        received = nodes.received()
        await nodes.wait_state(received, "waiting")
        assert nodes.b.parts()
        await nodes.b.stop()
        old = 8 * 86400
        for path in (*nodes.b.journals(), *(nodes.b.data / "dwcp" / "incoming").iterdir()):
            found = path.stat()
            os.utime(path, (found.st_atime - old, found.st_mtime - old))
        await nodes.revive(nodes.b)
        (swept,) = nodes.b.transfers.transfers()
        await nodes.wait_state(swept, "failed")
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_a_transfer_goes_on_after_the_session_was_lost(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    sources = [random_file(tmp_path / f"f{number}", 20 * CHUNK) for number in range(3)]
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfers: list[Transfer] = [await nodes.send(source) for source in sources]
        for transfer in transfers:
            await nodes.wait_moved(transfer, CHUNK)
        session = nodes.a.node.network.session(nodes.b.id)
        assert session is not None
        session.abort()
        for transfer, source in zip(transfers, sources, strict=True):
            await transfer.wait()
            assert digest(nodes.b.files / source.name) == digest(source)


async def test_a_node_that_nobody_can_reach_yet_after_a_restart_is_waited_for(
    tmp_path: Path, certificates: MakeCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_file(tmp_path / "f", 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await nodes.a.die()
        reached = OneSide.link_to

        async def unknown(self: OneSide, node: str) -> MemoryLink:
            raise PeerUnknownError(
                f"no node is known as {node}", why="this node knows no other yet"
            )

        monkeypatch.setattr(OneSide, "link_to", unknown)
        await nodes.revive(nodes.a)
        (again,) = nodes.a.transfers.transfers()
        await until(lambda: "knows no other yet" in again.why)
        assert not again.ended
        monkeypatch.setattr(OneSide, "link_to", reached)
        await again.wait()
        assert digest(nodes.b.files / "f") == digest(source)

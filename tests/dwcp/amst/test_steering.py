"""Pausing, limiting, cancelling, deadlines: by the sender's operator and by the receiver's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.errors import DeadlineError, TransferCancelledError
from novacron.dwcp.amst.transfer import Transfer
from tests.dwcp.amst.pair import CHUNK, Pair, digest, pair, random_file
from tests.network.authority import Certificates
from tests.network.conftest import until

MakeCertificates = Callable[[int], Certificates]
BY = pytest.mark.parametrize("by", ["sender", "receiver"])


def steered(nodes: Pair, transfer: Transfer, by: str) -> Transfer:
    return transfer if by == "sender" else nodes.received()


@BY
async def test_a_paused_transfer_moves_nothing_until_it_is_resumed(
    tmp_path: Path, certificates: MakeCertificates, by: str
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await steered(nodes, transfer, by).pause()
        await nodes.wait_state(transfer, "paused")
        await nodes.wait_state(nodes.received(), "paused")
        await trio.sleep(0.05)  # what was under way arrives
        moved = transfer.progress().moved_bytes
        await trio.sleep(0.1)
        assert transfer.progress().moved_bytes == moved < 60 * CHUNK
        await steered(nodes, transfer, by).resume()
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert transfer.view().bytes_moved == 60 * CHUNK


async def test_a_paused_transfer_is_still_paused_after_a_restart_and_a_lost_link(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await transfer.pause()
        nodes.wires.lose()
        await nodes.a.die()
        await nodes.revive(nodes.a)
        (again,) = nodes.a.transfers.transfers()
        await nodes.wait_state(again, "paused")
        made = nodes.wires.made
        await trio.sleep(0.1)
        assert nodes.wires.made == made
        await again.resume()
        await again.wait()
        assert digest(nodes.b.files / "f") == digest(source)


@BY
async def test_a_cancelled_transfer_leaves_nothing_behind(
    tmp_path: Path, certificates: MakeCertificates, by: str
) -> None:
    root = tmp_path / "vm"
    for number in range(5):
        random_file(root / f"{number}", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(root)
        await nodes.wait_moved(transfer, 20 * CHUNK)
        received = nodes.received()
        assert nodes.b.parts()
        await steered(nodes, transfer, by).cancel()
        with pytest.raises(TransferCancelledError):
            await transfer.wait()
        with pytest.raises(TransferCancelledError):
            await received.wait()
        assert transfer.view().state == received.view().state == "cancelled"
        assert nodes.b.parts() == nodes.b.journals() == []
        assert [path for path in nodes.b.files.rglob("*") if path.is_file()] == []


async def test_a_transfer_is_cancelled_at_the_receiver_while_the_sender_is_away(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await nodes.a.die()
        received = nodes.received()
        await nodes.wait_state(received, "waiting")
        await received.cancel()
        assert nodes.b.parts() == []
        # Also where the receiver was restarted in between, the sender is not let in again.
        await nodes.b.die()
        await nodes.revive(nodes.b)
        await nodes.revive(nodes.a)
        (again,) = nodes.a.transfers.transfers()
        with pytest.raises(TransferCancelledError, match="at the receiver"):
            await again.wait()
        assert nodes.b.parts() == []
        assert not (nodes.b.files / "f").exists()


async def test_a_failed_transfer_is_cancelled_to_remove_what_is_partial(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source, deadline_seconds=0.2)
        with pytest.raises(DeadlineError):
            await transfer.wait()
        await nodes.wait_state(nodes.received(), "failed")
        assert nodes.b.parts()
        await transfer.cancel()
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_a_deadline_ends_a_transfer_and_what_came_is_kept(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 60 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source, deadline_seconds=0.3)
        with pytest.raises(DeadlineError, match="deadline"):
            await transfer.wait()
        moved = transfer.view().bytes_moved
        assert 0 < moved < 60 * CHUNK
        assert transfer.view().state == "failed"
        await nodes.wait_state(nodes.received(), "failed")
        assert "deadline" in nodes.received().view().why
        nodes.wires.faults.chunk_delay = 0.0
        again = await nodes.send(source)
        assert again.id == transfer.id
        await again.wait()
        assert again.view().bytes_moved <= 60 * CHUNK - moved + CHUNK
        assert digest(nodes.b.files / "f") == digest(source)


@BY
async def test_a_limit_holds_the_transfer_back_and_is_lifted(
    tmp_path: Path, certificates: MakeCertificates, by: str
) -> None:
    source = random_file(tmp_path / "f", 100 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(source, limit_bps=CHUNK)  # a chunk a second
        await nodes.wait_moved(transfer, CHUNK)
        assert transfer.view().limit_bps == CHUNK
        await trio.sleep(0.2)
        assert transfer.progress().moved_bytes < 50 * CHUNK
        await steered(nodes, transfer, by).limit(0)
        await until(lambda: transfer.limit_bps == 0)
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)


async def test_a_limit_holds_for_small_files_together(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    root = tmp_path / "many"
    for number in range(50):
        random_file(root / f"{number}", 2000)
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(root, limit_bps=10_000)
        await nodes.wait_moved(transfer, 2000)
        await trio.sleep(0.3)
        # 0.3 s and the burst are worth 3,500 bytes; without a limit all would have been there.
        assert transfer.progress().moved_bytes <= 20_000
        await transfer.cancel()


async def test_a_cancelled_transfer_that_never_reached_the_receiver_just_ends(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        await nodes.b.die()
        transfer = await nodes.send(source)
        await until(lambda: "takes no transfers" in transfer.view().why)
        await transfer.cancel()
        assert transfer.view().state == "cancelled"
        await nodes.revive(nodes.b)

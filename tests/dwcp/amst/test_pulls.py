"""A node has another one send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novacron.dwcp.amst.errors import (
    DeadlineError,
    ObjectRefusedError,
    PathDeniedError,
    SourceReadError,
    TransferCancelledError,
)
from novacron.dwcp.amst.transfer import Transfer
from novacron.dwcp.amst.transfers import ReceiveRequest
from tests.dwcp.amst.pair import CHUNK, Pair, digest, pair, random_file
from tests.network.authority import Certificates

MakeCertificates = Callable[[int], Certificates]


async def pull(nodes: Pair, *paths: str, to: str, **options: Any) -> Transfer:
    return await nodes.b.transfers.receive(
        ReceiveRequest(node=nodes.a.id, paths=paths, path=to, **options)
    )


async def test_a_file_is_pulled_to_where_the_operator_says(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        source = random_file(nodes.a.files / "images" / "disk", 5 * CHUNK)
        transfer = await pull(nodes, "images/disk", to="mine/copy")
        await transfer.wait()
        assert digest(nodes.b.files / "mine" / "copy") == digest(source)
        view = transfer.view()
        assert (view.direction, view.role, view.state) == ("receive", "receiver", "done")
        assert view.paths == ["images/disk"]
        assert view.destination == str(nodes.b.files / "mine" / "copy")
        (other,) = nodes.a.transfers.transfers()
        await other.wait()
        assert other.view().role == "sender"


async def test_a_directory_and_a_file_are_pulled_together(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        one = random_file(nodes.a.files / "one", 10)
        two = random_file(nodes.a.files / "dir" / "two", 3 * CHUNK)
        await (await pull(nodes, "one", str(nodes.a.files / "dir"), to="here/")).wait()
        assert digest(nodes.b.files / "here" / "one") == digest(one)
        assert digest(nodes.b.files / "here" / "dir" / "two") == digest(two)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "link", "link/passwd"])
async def test_only_what_lies_in_the_allowed_directories_is_given_away(
    tmp_path: Path, certificates: MakeCertificates, path: str
) -> None:
    random_file(tmp_path / "a" / "secret", 10)
    async with pair(tmp_path, certificates) as nodes:
        (nodes.a.files / "link").symlink_to("/etc")
        transfer = await pull(nodes, path, to="here/")
        with pytest.raises(Exception, match=r"cannot (send|read)|not allowed") as caught:
            await transfer.wait()
        assert not isinstance(caught.value, AssertionError)
        assert transfer.view().state == "failed"
        assert [found for found in nodes.b.files.rglob("*") if found.is_file()] == []
        assert nodes.a.transfers.list() == []


async def test_what_is_not_there_fails_at_once(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        transfer = await pull(nodes, "nothing", to="here")
        with pytest.raises(SourceReadError, match="nothing"):
            await transfer.wait()


async def test_a_pull_to_outside_of_the_allowed_directories_needs_to_be_allowed(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with pair(tmp_path, certificates) as nodes:
        source = random_file(nodes.a.files / "f", 3 * CHUNK)
        assert not nodes.b.transfers.allows(str(outside / "f"))
        with pytest.raises(PathDeniedError):
            await pull(nodes, "f", to=str(outside / "f"))
        with pytest.raises(PathDeniedError):
            await pull(nodes, "f", to="../f", anywhere=True)
        assert nodes.b.transfers.list() == []
        transfer = await pull(nodes, "f", to=str(outside / "f"), anywhere=True)
        await transfer.wait()
        assert digest(outside / "f") == digest(source)
        await (await pull(nodes, "f", to=f"{outside}/in/", anywhere=True)).wait()
        assert digest(outside / "in" / "f") == digest(source)


async def test_a_pull_goes_on_after_both_nodes_died(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        source = random_file(nodes.a.files / "f", 80 * CHUNK)
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await pull(nodes, "f", to="copy")
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.b.die()
        await nodes.revive(nodes.b)
        (again,) = nodes.b.transfers.transfers()
        assert again.id == transfer.id
        await nodes.wait_moved(again, 10 * CHUNK)
        await nodes.a.die()
        nodes.wires.faults.chunk_delay = 0.0
        await nodes.revive(nodes.a)
        await again.wait()
        assert digest(nodes.b.files / "copy") == digest(source)
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_a_pull_whose_sender_forgot_it_asks_again(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        source = random_file(nodes.a.files / "f", 80 * CHUNK)
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await pull(nodes, "f", to="copy")
        await nodes.wait_moved(transfer, 20 * CHUNK)
        await nodes.a.die()
        for record in (nodes.a.data / "dwcp" / "outgoing").iterdir():
            record.unlink()
        nodes.wires.faults.chunk_delay = 0.0
        await nodes.revive(nodes.a)
        await transfer.wait()
        assert digest(nodes.b.files / "copy") == digest(source)


async def test_a_pull_that_failed_is_gone_on_with_when_it_is_asked_for_again(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        source = random_file(nodes.a.files / "f", 60 * CHUNK)
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await pull(nodes, "f", to="copy", deadline_seconds=0.3)
        with pytest.raises(DeadlineError):
            await transfer.wait()
        nodes.wires.faults.chunk_delay = 0.0
        again = await pull(nodes, "f", to="copy")
        await again.wait()
        assert digest(nodes.b.files / "copy") == digest(source)


async def test_a_pull_is_cancelled_by_who_asked(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        random_file(nodes.a.files / "f", 60 * CHUNK)
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await pull(nodes, "f", to="copy")
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await transfer.cancel()
        with pytest.raises(TransferCancelledError):
            await transfer.wait()
        (other,) = nodes.a.transfers.transfers()
        await nodes.wait_state(other, "cancelled")
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_a_pull_of_a_file_that_is_there_is_refused(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        source = random_file(nodes.a.files / "f", CHUNK)
        old = random_file(nodes.b.files / "copy", 5)
        transfer = await pull(nodes, "f", to="copy")
        with pytest.raises(ObjectRefusedError) as caught:
            await transfer.wait()
        assert "there already" in caught.value.why
        assert old.stat().st_size == 5
        again = await pull(nodes, "f", to="copy", overwrite=True)
        await again.wait()
        assert digest(old) == digest(source)

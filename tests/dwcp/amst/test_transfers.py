"""Transfers from one node to another, whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from novacron.dwcp.amst.errors import TransferUnknownError
from novacron.dwcp.amst.transfer import TRANSFER_BYTES, TRANSFERS
from novacron.dwcp.amst.transfers import SendRequest
from novacron.network.session import PeerSession
from tests.dwcp.amst.pair import CHUNK, digest, pair, random_file
from tests.network.authority import Certificates

MakeCertificates = Callable[[int], Certificates]


async def test_a_file_arrives_with_its_content_mode_and_time(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "disk.img", 5 * CHUNK + 17)
    source.chmod(0o640)
    os.utime(source, ns=(1_600_000_000_123_456_789,) * 2)
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(source, to="images/new.img")
        await transfer.wait()
        arrived = nodes.b.files / "images" / "new.img"
        assert digest(arrived) == digest(source)
        found = arrived.stat()
        assert found.st_mode & 0o777 == 0o640
        assert found.st_mtime_ns == 1_600_000_000_123_456_789
        view = transfer.view()
        assert (view.state, view.files_done, view.bytes_done) == ("done", 1, 5 * CHUNK + 17)
        assert view.bytes_moved == 5 * CHUNK + 17
        assert view.destination == str(arrived)
        other = nodes.received().view()
        assert (other.role, other.state, other.bytes_done) == ("receiver", "done", 5 * CHUNK + 17)
        assert nodes.b.parts() == nodes.b.journals() == []


async def test_holes_stay_holes_and_cross_nothing(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = tmp_path / "sparse.img"
    size = 64 << 20
    with source.open("wb") as file:
        file.truncate(size)
        file.seek(3 * CHUNK)
        file.write(os.urandom(CHUNK))
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(source)
        await transfer.wait()
        arrived = nodes.b.files / "sparse.img"
        assert digest(arrived) == digest(source)
        assert arrived.stat().st_blocks * 512 < 4 * CHUNK
        view = transfer.view()
        assert view.bytes_moved == CHUNK
        assert view.bytes_zero == size - CHUNK
        assert view.bytes_done == size


async def test_an_empty_file_arrives(tmp_path: Path, certificates: MakeCertificates) -> None:
    source = tmp_path / "empty"
    source.touch(mode=0o600)
    async with pair(tmp_path, certificates) as nodes:
        await (await nodes.send(source)).wait()
        arrived = nodes.b.files / "empty"
        assert arrived.stat().st_size == 0
        assert arrived.stat().st_mtime_ns == source.stat().st_mtime_ns
        assert nodes.b.parts() == []


def make_tree(root: Path) -> Path:
    """Directories, one of them empty, files of several sizes, and a link that is not sent."""
    random_file(root / "a", 3)
    random_file(root / "deep" / "er" / "b", 2 * CHUNK)
    random_file(root / "deep" / "c", 0)
    (root / "nothing").mkdir()
    (root / "link").symlink_to("a")
    (root / "deep").chmod(0o750)
    os.utime(root / "deep", ns=(1_500_000_000_000_000_007,) * 2)
    return root


def contents(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else "directory"
        for path in root.rglob("*")
        if not path.is_symlink()
    }


async def test_a_directory_arrives_under_a_new_name_or_in_one_that_is_there(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = make_tree(tmp_path / "vm")
    async with pair(tmp_path, certificates) as nodes:
        first = await nodes.send(source, to="copy")
        await first.wait()
        copy = nodes.b.files / "copy"
        assert contents(copy) == contents(source)
        assert not (copy / "link").exists()
        found = (copy / "deep").stat()
        assert found.st_mode & 0o777 == 0o750
        assert found.st_mtime_ns == 1_500_000_000_000_000_007
        assert first.view().files_total == first.view().files_done == 7
        # As cp -r does: now it is there.
        second = await nodes.send(source, to="copy")
        await second.wait()
        assert second.id != first.id
        assert contents(copy / "vm") == contents(source)


@pytest.mark.parametrize("path", ["vm/.", "vm/x/.."])
async def test_what_has_no_name_goes_into_the_destination(
    tmp_path: Path, certificates: MakeCertificates, path: str
) -> None:
    source = make_tree(tmp_path / "vm")
    (source / "x").mkdir()
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.a.transfers.send(
            SendRequest(node=nodes.b.id, paths=(f"{tmp_path}/{path}",), path="here")
        )
        await transfer.wait()
        assert contents(nodes.b.files / "here") == contents(source)


async def test_several_paths_go_into_a_directory_that_is_made(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    one, two = random_file(tmp_path / "one", 10), random_file(tmp_path / "two", CHUNK + 1)
    async with pair(tmp_path, certificates) as nodes:
        await (await nodes.send(one, two, to="new")).wait()
        assert digest(nodes.b.files / "new" / "one") == digest(one)
        assert digest(nodes.b.files / "new" / "two") == digest(two)


async def test_many_small_files_take_few_messages(
    tmp_path: Path, certificates: MakeCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 600
    for number in range(count):
        random_file(tmp_path / "many" / f"{number % 7}" / f"{number}", number)
    asked: list[str] = []
    original = PeerSession.request

    async def counted(self: PeerSession, method: str, body: bytes, *, within: float) -> bytes:
        asked.append(method)
        return await original(self, method, body, within=within)

    monkeypatch.setattr(PeerSession, "request", counted)
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(tmp_path / "many")
        await transfer.wait()
        assert contents(nodes.b.files / "many") == contents(tmp_path / "many")
        assert transfer.view().files_done == count + 8
        assert nodes.b.parts() == nodes.b.journals() == []
    assert asked.count("amst.entries") < count / 10
    assert asked.count("amst.finish") < count / 2


async def test_several_transfers_share_one_link(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    sources = [random_file(tmp_path / f"f{number}", 4 * CHUNK) for number in range(6)]
    back = random_file(tmp_path / "back", 4 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        transfers = [await nodes.send(source) for source in sources]
        transfers.append(
            await nodes.b.transfers.send(
                SendRequest(node=nodes.a.id, paths=(str(back),), path="back")
            )
        )
        for transfer in transfers:
            await transfer.wait()
        for source in sources:
            assert digest(nodes.b.files / source.name) == digest(source)
        assert digest(nodes.a.files / "back") == digest(back)
        assert nodes.wires.made == 1


async def test_a_transfer_is_found_by_the_beginning_of_its_id(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(random_file(tmp_path / "f", 1))
        await transfer.wait()
        service = nodes.a.transfers
        assert service.find(transfer.id.hex()[:4].upper()) is transfer
        with pytest.raises(TransferUnknownError, match="no transfer"):
            service.find(transfer.id.hex()[:3])
        assert [view.id for view in service.list()] == [transfer.id.hex()]


async def test_a_watcher_sees_the_state_change_and_bytes_move(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.03
        transfer = await nodes.send(source)
        seen = []
        while not transfer.ended:
            await transfer.wait_changed()
            seen.append(transfer.view())
        await transfer.wait_changed()  # at once, when it is over
        assert {"connecting", "moving", "finishing", "done"} <= {view.state for view in seen}
        moving = [view for view in seen if view.state == "moving" and view.bytes_moved]
        assert moving
        assert moving[-1].rate_bps > 0
        assert moving[-1].eta_seconds is not None
        assert moving[-1].current == "f"
        assert (moving[-1].mover, moving[-1].streams) == ("memory", 1)
        assert seen[-1].wire_bytes == source.stat().st_size


async def test_asking_for_the_same_again_attaches_to_what_is_under_way(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 30 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        assert await nodes.send(source) is transfer
        assert await nodes.send(source, to="other") is not transfer
        await transfer.wait()


async def test_what_ended_is_counted_by_its_result(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    before = TRANSFERS.values.get(("sender", "done"), 0.0)
    sent = TRANSFER_BYTES.values.get(("sent",), 0.0)
    async with pair(tmp_path, certificates) as nodes:
        await (await nodes.send(random_file(tmp_path / "f", CHUNK + 1))).wait()
    assert TRANSFERS.values["sender", "done"] == before + 1
    assert TRANSFER_BYTES.values["sent",] == sent + CHUNK + 1

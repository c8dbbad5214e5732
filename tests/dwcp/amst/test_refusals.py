"""What a transfer is refused for, and what is there afterwards: nothing that was not verified."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.dwcp.amst import targets
from novacron.dwcp.amst.bodies import Bodies
from novacron.dwcp.amst.errors import (
    MessageError,
    NoSpaceError,
    ObjectRefusedError,
    PathDeniedError,
    SourceInvalidError,
    SourceReadError,
    TargetWriteError,
    TransferRefusedError,
)
from novacron.dwcp.amst.transfer_messages import (
    Begin,
    Begun,
    Entries,
    EntriesTaken,
    Entry,
    Finish,
    Finished,
    FinishObject,
    Outcome,
    Start,
    pack,
    unpack,
)
from novacron.dwcp.amst.transfers import SendRequest
from novacron.dwcp.amst.transport import Source
from novacron.errors import NotFoundError
from novacron.network.errors import RequestFailedError
from tests.dwcp.amst.pair import CHUNK, Pair, digest, pair, random_file
from tests.network.authority import Certificates
from tests.network.conftest import until

MakeCertificates = Callable[[int], Certificates]


async def test_a_file_that_is_there_is_not_overwritten_unless_asked(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        old = random_file(nodes.b.files / "f", 10)
        before = old.read_bytes()
        transfer = await nodes.send(source)
        with pytest.raises(ObjectRefusedError, match="f was not sent") as caught:
            await transfer.wait()
        assert "it is there already" in caught.value.why
        assert "--overwrite" in caught.value.remedy
        assert old.read_bytes() == before
        view = transfer.view()
        assert [error.path for error in view.errors] == ["f"]
        received = nodes.received().view()
        assert received.state == "failed"
        again = await nodes.send(source, overwrite=True)
        await again.wait()
        assert digest(old) == digest(source)


async def test_one_file_that_is_refused_does_not_stop_the_others(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    root = tmp_path / "vm"
    for name in "abc":
        random_file(root / name, 2 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        random_file(nodes.b.files / "in" / "vm" / "b", 1)
        transfer = await nodes.send(root, to="in/")
        with pytest.raises(ObjectRefusedError, match="1 of 4 files were not sent"):
            await transfer.wait()
        assert digest(nodes.b.files / "in" / "vm" / "a") == digest(root / "a")
        assert digest(nodes.b.files / "in" / "vm" / "c") == digest(root / "c")
        # What is in the way is taken away, and the same is asked for again.
        (nodes.b.files / "in" / "vm" / "b").unlink()
        again = await nodes.send(root, to="in/")
        assert again.id == transfer.id
        await again.wait()
        assert digest(nodes.b.files / "in" / "vm" / "b") == digest(root / "b")
        assert again.view().bytes_moved == 2 * CHUNK


@pytest.mark.parametrize(
    "path", ["/etc/f", "../f", "a/../../f", "link/f", "link", "a/\x07f", "dir/link/x"]
)
async def test_nothing_is_written_outside_of_the_allowed_directories(
    tmp_path: Path, certificates: MakeCertificates, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    source = random_file(tmp_path / "f", 100)
    async with pair(tmp_path, certificates) as nodes:
        (nodes.b.files / "dir").mkdir()
        (nodes.b.files / "link").symlink_to(outside)
        (nodes.b.files / "dir" / "link").symlink_to("..")
        transfer = await nodes.send(source, to=path)
        with pytest.raises((PathDeniedError, ObjectRefusedError)) as caught:
            await transfer.wait()
        assert caught.value.remedy
        assert transfer.view().state == "failed"
        assert list(outside.iterdir()) == []
        assert not Path("/etc/f").exists()
        assert nodes.b.parts() == []


@pytest.mark.parametrize("special", ["fifo", "directory"])
async def test_what_is_no_file_is_not_replaced(
    tmp_path: Path, certificates: MakeCertificates, special: str
) -> None:
    source = random_file(tmp_path / "f", 100)
    async with pair(tmp_path, certificates) as nodes:
        place = nodes.b.files / "in" / "f"
        place.parent.mkdir()
        os.mkfifo(place) if special == "fifo" else place.mkdir()
        transfer = await nodes.send(source, to="in/", overwrite=True)
        with pytest.raises(ObjectRefusedError):
            await transfer.wait()
        assert place.is_fifo() or place.is_dir()


async def test_a_sender_that_names_other_paths_gets_nowhere(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    """A hostile sender speaks the protocol by hand."""
    async with pair(tmp_path, certificates) as nodes:
        by_hand = ByHand(nodes)
        assert (await by_hand.begin("in/")).trouble is None
        for path in ("../x", "/etc/x", "a/../b", "", ".", "a//b", "a\0b", ".f.0.novacron-part"):
            (state,) = (await by_hand.offer(path=path)).entries
            assert state.state == "refused"
            assert state.trouble is not None
            assert state.trouble.code == "dwcp.path_denied"
        assert list(nodes.b.files.rglob("*")) == [nodes.b.files / "in"]


async def test_a_root_that_does_not_add_up_is_refused_and_nothing_has_a_name(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        by_hand = ByHand(nodes)
        await by_hand.begin("f")
        await by_hand.offer(path="f", size=2 * CHUNK)
        await by_hand.send(os.urandom(2 * CHUNK))
        answer = await by_hand.ask(
            "amst.finish", Finish(by_hand.id, [FinishObject(0, bytes(32))]), Finished
        )
        trouble = answer.objects[0].trouble
        assert trouble is not None
        assert trouble.code == "dwcp.integrity"
        assert not (nodes.b.files / "f").exists()
        assert nodes.b.parts() == []


async def test_a_piece_that_changed_on_the_way_is_found_at_the_end(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 10 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.flip_writes = 1
        transfer = await nodes.send(source)
        with pytest.raises(ObjectRefusedError, match="was not sent") as caught:
            await transfer.wait()
        assert "is not what was sent" in caught.value.why
        assert not (nodes.b.files / "f").exists()
        assert nodes.b.parts() == []
        # Nothing of it is believed: the next one moves everything.
        again = await nodes.send(source)
        await again.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert again.view().bytes_moved == 10 * CHUNK


async def test_a_source_that_changes_meanwhile_is_refused(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        with source.open("r+b") as file:
            file.write(b"new")
        with pytest.raises(ObjectRefusedError, match="was not sent") as caught:
            await transfer.wait()
        assert "changed while it was being sent" in caught.value.why
        assert "on_change" in caught.value.remedy
        assert not (nodes.b.files / "f").exists()


async def test_a_source_that_changes_meanwhile_begins_again_where_that_is_asked(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(source, on_change="restart")
        await nodes.wait_moved(transfer, 10 * CHUNK)
        random_file(source, 30 * CHUNK)
        await transfer.wait()
        assert digest(nodes.b.files / "f") == digest(source)
        assert transfer.view().files_done == 1
        assert nodes.b.parts() == nodes.b.journals() == []


@pytest.mark.parametrize("on_change", ["refuse", "restart"])
async def test_a_source_that_changed_between_two_attempts_is_noticed(
    tmp_path: Path, certificates: MakeCertificates, on_change: str
) -> None:
    source = random_file(tmp_path / "f", 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source, on_change=on_change)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await nodes.pause(transfer)
        nodes.wires.lose()
        random_file(source, 40 * CHUNK)
        nodes.wires.faults.chunk_delay = 0.0
        await transfer.resume()
        if on_change == "restart":
            await transfer.wait()
            assert digest(nodes.b.files / "f") == digest(source)
        else:
            with pytest.raises(ObjectRefusedError) as caught:
                await transfer.wait()
            assert "is not what it was when the transfer began" in caught.value.why
            assert not (nodes.b.files / "f").exists()


async def test_a_finished_file_whose_source_changed_is_sent_again_where_that_is_asked(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    root = tmp_path / "vm"
    first, second = random_file(root / "a", CHUNK), random_file(root / "b", 40 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(root, on_change="restart")
        await until(lambda: (nodes.b.files / "vm" / "a").exists())
        await nodes.wait_moved(transfer, 10 * CHUNK)
        await nodes.pause(transfer)
        nodes.wires.lose()
        random_file(first, CHUNK + 1)
        nodes.wires.faults.chunk_delay = 0.0
        await transfer.resume()
        await transfer.wait()
        assert digest(nodes.b.files / "vm" / "a") == digest(first)
        assert digest(nodes.b.files / "vm" / "b") == digest(second)


async def test_a_source_that_goes_away_fails_alone(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    root = tmp_path / "vm"
    for name in ("a", "b"):
        random_file(root / name, 30 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.005
        transfer = await nodes.send(root)
        await nodes.wait_moved(transfer, 10 * CHUNK)
        (root / "a").unlink()
        with pytest.raises(ObjectRefusedError, match="1 of"):
            await transfer.wait()
        assert digest(nodes.b.files / "vm" / "b") == digest(root / "b")


@pytest.mark.parametrize(
    ("paths", "error", "says"),
    [
        (("/nowhere/at/all",), SourceReadError, "No such file"),
        (("/dev/null",), SourceInvalidError, "device"),
        (("/",), SourceInvalidError, "it is a directory"),
        ((), SourceInvalidError, "0 paths"),
    ],
)
async def test_what_cannot_be_sent_is_said_at_once(
    tmp_path: Path,
    certificates: MakeCertificates,
    paths: tuple[str, ...],
    error: type[Exception],
    says: str,
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        request = SendRequest(node=nodes.b.id, paths=paths, path="x", recursive=False)
        with pytest.raises(error, match=says):
            await nodes.a.transfers.send(request)
        assert nodes.a.transfers.list() == []


async def test_a_node_that_nobody_knows_is_said_at_once(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 1)
    async with pair(tmp_path, certificates) as nodes:
        with pytest.raises(NotFoundError):
            await nodes.a.transfers.send(
                SendRequest(
                    node="00000000-0000-4000-8000-00000000ffff", paths=(str(source),), path="f"
                )
            )


async def test_a_receiver_that_is_full_says_so_before_anything_moves(
    tmp_path: Path, certificates: MakeCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs

    def almost_full(descriptor: int) -> Any:
        fields = list(real(descriptor))
        fields[4] = 5  # f_bavail
        return os.statvfs_result(fields)

    source = random_file(tmp_path / "f", 100 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        monkeypatch.setattr(targets.os, "fstatvfs", almost_full)
        transfer = await nodes.send(source)
        with pytest.raises(NoSpaceError) as caught:
            await transfer.wait()
        assert str(100 * CHUNK) in caught.value.why
        assert caught.value.remedy
        assert transfer.view().bytes_moved == 0
        assert nodes.b.parts() == []


@contextmanager
def small_file_system(directory: Path, size: int) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_a_disk_that_fills_up_meanwhile_fails_clearly_and_loses_nothing_else(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 100 * CHUNK)
    with small_file_system(tmp_path / "small", 200 * CHUNK):
        async with pair(tmp_path, certificates, directories=(str(tmp_path / "small"),)) as nodes:
            other = random_file(tmp_path / "small" / "other", CHUNK)
            kept = digest(other)
            nodes.wires.faults.chunk_delay = 0.002
            transfer = await nodes.send(source)
            await nodes.wait_moved(transfer, 10 * CHUNK)
            filler = tmp_path / "small" / "filler"
            with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(CHUNK))
                    file.flush()
            with pytest.raises(TargetWriteError) as caught:
                await transfer.wait()
            assert "No space left" in caught.value.why
            assert "free space" in caught.value.remedy
            assert nodes.received().view().state == "failed"
            assert digest(other) == kept
            filler.unlink()
            nodes.wires.faults.chunk_delay = 0.0
            again = await nodes.send(source)
            await again.wait()
            assert digest(tmp_path / "small" / "f") == digest(source)
            assert again.view().bytes_moved < 100 * CHUNK


async def test_a_file_larger_than_the_receiver_may_write_fails_clearly(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 40 * CHUNK)
    small = random_file(tmp_path / "g", CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20 * CHUNK, before[1]))
        try:
            transfer = await nodes.send(source)
            with pytest.raises(TargetWriteError, match="f"):
                await transfer.wait()
            await (await nodes.send(small)).wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not (nodes.b.files / "f").exists()


async def test_a_receiver_with_as_many_transfers_as_it_takes_lets_others_wait(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    sources = [random_file(tmp_path / f"f{number}", 20 * CHUNK) for number in range(3)]
    async with pair(tmp_path, certificates) as nodes:
        nodes.b.settings = nodes.b.settings.model_copy(update={"max_transfers": 1})
        await nodes.b.die()
        await nodes.revive(nodes.b)
        nodes.wires.faults.chunk_delay = 0.005
        transfers = [await nodes.send(source) for source in sources]
        await until(lambda: any("as many transfers" in each.why for each in transfers))
        for transfer in transfers:
            await transfer.wait()


async def test_what_breaks_the_protocol_is_refused(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        by_hand = ByHand(nodes)
        session = nodes.a.node.network.session(nodes.b.id)
        assert session is not None
        with pytest.raises(RequestFailedError, match="bad Begin"):
            await session.request("amst.begin", b"\x80", within=5)
        stranger = await by_hand.offer(path="f")
        assert stranger.trouble is not None
        assert stranger.trouble.code == "dwcp.transfer_unknown"
        await by_hand.begin("f")
        await by_hand.offer(path="f", size=4 * CHUNK)
        twice = await by_hand.ask("amst.start", Start(by_hand.id, 0, False, b""), Outcome)
        assert twice.trouble is not None
        assert twice.trouble.code == MessageError.code
        many = [by_hand.entry(path=f"{n}", entry=n) for n in range(1, 65)]
        for batch in range(4):
            answer = await by_hand.ask(
                "amst.entries",
                Entries(by_hand.id, 0, 0, [e._replace(entry=e.entry + 64 * batch) for e in many]),
                EntriesTaken,
            )
        assert answer.trouble is not None
        assert "at once" in answer.trouble.what


async def test_another_node_cannot_touch_a_transfer(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "f", 20 * CHUNK)
    async with pair(tmp_path, certificates) as nodes:
        nodes.wires.faults.chunk_delay = 0.01
        transfer = await nodes.send(source)
        await nodes.wait_moved(transfer, CHUNK)
        service = nodes.b.transfers._answering
        with pytest.raises(Exception, match="does not know the transfer"):
            service._roster.incoming("00000000-0000-4000-8000-00000000ffff", transfer.id)
        with pytest.raises(TransferRefusedError, match="another one's"):
            service._admit(
                "00000000-0000-4000-8000-00000000ffff",
                Begin(transfer.id, bytes(16), "x", False, False, "refuse", 1, None),
            )
        with pytest.raises(TransferRefusedError, match="not asked for"):
            service._admit(
                nodes.a.id,
                Begin(bytes(16), bytes(16), "x", False, False, "refuse", 1, bytes(16)),
            )
        await transfer.wait()


class ByHand:
    """A sender that says what a test wants it to."""

    def __init__(self, nodes: Pair) -> None:
        self.id = os.urandom(16)
        self.link = nodes.wires.link_of(nodes.a.id)
        self._session = nodes.a.node.network.session(nodes.b.id)
        self._bodies = Bodies()

    async def ask(self, method: str, message: Any, answer: type[Any]) -> Any:
        assert self._session is not None
        body = await self._session.request(method, pack(message), within=10)
        return unpack(answer, await self._bodies.decode(body))

    async def begin(self, path: str) -> Begun:
        message = Begin(self.id, self.link.link_id, path, False, False, "refuse", 1, None)
        answer: Begun = await self.ask("amst.begin", message, Begun)
        return answer

    def entry(self, *, path: str, size: int = 0, entry: int = 0) -> Entry:
        return Entry(entry, 7000 + entry, 0, path, "file", size, 0o644, 0, False, CHUNK, bytes(32))

    async def offer(self, *, path: str, size: int = 0) -> EntriesTaken:
        answer: EntriesTaken = await self.ask(
            "amst.entries",
            Entries(self.id, 1, size, [self.entry(path=path, size=size)]),
            EntriesTaken,
        )
        return answer

    async def send(self, data: bytes) -> None:
        moving = self.link.send_object(7000, 0, Source(len(data), memory=data), chunk_bytes=CHUNK)
        try:
            with trio.fail_after(10):
                await moving.wait()
        finally:
            await moving.aclose()

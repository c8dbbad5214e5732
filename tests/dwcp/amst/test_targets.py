from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from zlib import crc32

import pytest

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.errors import (
    NoSpaceError,
    PathDeniedError,
    TargetExistsError,
    TargetWriteError,
)
from novacron.dwcp.amst.journal import Subject, create_journal, open_journal
from novacron.dwcp.amst.paths import Confinement, Place
from novacron.dwcp.amst.targets import (
    PartFile,
    check_space,
    create_directory,
    create_part,
    finish_directory,
    is_directory,
    is_finished,
    open_part,
    part_name,
    remove_part,
)

TRANSFER = bytes.fromhex("0123456789abcdef0123456789abcdef")
PART = ".disk.01234567.novacron-part"
CHUNK = 65536
TIME = 1_700_000_000_123_456_789


@pytest.fixture(autouse=True)
def nothing_left_open(no_leaks: None) -> None:
    pass


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Confinement([tmp_path]).open_target("disk", into=False) as place:
        yield place


def write(part: PartFile, data: bytes, offset: int = 0) -> None:
    assert os.pwrite(part.descriptor, data, offset) == len(data)


def listed(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_part_file_is_private_as_long_as_the_object_and_empty(
    place: Place, tmp_path: Path
) -> None:
    with create_part(place, TRANSFER, 1 << 40, overwrite=False) as part:
        found = os.fstat(part.descriptor)
        assert (found.st_size, found.st_blocks) == (1 << 40, 0)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert not os.get_inheritable(part.descriptor)
        assert listed(tmp_path) == [PART]


@pytest.mark.parametrize("overwrite", [True, False])
def test_the_whole_file_gets_its_name_mode_and_time(
    place: Place, tmp_path: Path, overwrite: bool
) -> None:
    with create_part(place, TRANSFER, 5, overwrite=overwrite) as part:
        write(part, b"whole")
        part.finish(0o6750, TIME, overwrite=overwrite)
    assert listed(tmp_path) == ["disk"]
    found = (tmp_path / "disk").stat()
    assert (tmp_path / "disk").read_bytes() == b"whole"
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o750, TIME)
    assert found.st_nlink == 1
    assert is_finished(place, 5, TIME)
    assert not is_finished(place, 6, TIME)


def test_what_is_there_is_overwritten_only_when_asked(place: Place, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("old")
    with pytest.raises(TargetExistsError, match="there already") as caught:
        create_part(place, TRANSFER, 3, overwrite=False)
    assert "--overwrite" in caught.value.remedy
    with create_part(place, TRANSFER, 3, overwrite=True) as part:
        write(part, b"new")
        assert (tmp_path / "disk").read_text() == "old"
        part.finish(0o644, TIME, overwrite=True)
    assert (tmp_path / "disk").read_text() == "new"


def test_what_came_there_meanwhile_is_not_overwritten(place: Place, tmp_path: Path) -> None:
    with create_part(place, TRANSFER, 3, overwrite=False) as part:
        (tmp_path / "disk").write_text("theirs")
        with pytest.raises(TargetExistsError):
            part.finish(0o644, TIME, overwrite=False)
    assert (tmp_path / "disk").read_text() == "theirs"
    assert listed(tmp_path) == [PART, "disk"]


def test_a_file_system_without_hard_links_will_do(place: Place, tmp_path: Path) -> None:
    failure = OSError(errno.EPERM, "Operation not permitted")
    with create_part(place, TRANSFER, 3, overwrite=False) as part:
        write(part, b"new")
        with mock.patch.object(os, "link", side_effect=failure):
            part.finish(0o644, TIME, overwrite=False)
    assert listed(tmp_path) == ["disk"]


def test_a_link_that_was_made_before_the_end_is_no_obstacle(place: Place, tmp_path: Path) -> None:
    """As after a crash between the new name and the removal of the old one."""
    with create_part(place, TRANSFER, 3, overwrite=False) as part:
        write(part, b"new")
        os.link(tmp_path / PART, tmp_path / "disk")
        part.finish(0o644, TIME, overwrite=False)
    assert listed(tmp_path) == ["disk"]


def make(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("elsewhere")


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_file_is_never_replaced(
    place: Place, tmp_path: Path, kind: str, overwrite: bool
) -> None:
    make(tmp_path / "disk", kind)
    with pytest.raises((TargetExistsError, PathDeniedError)):
        create_part(place, TRANSFER, 3, overwrite=overwrite)
    os.rename(tmp_path / "disk", tmp_path / "aside")
    with create_part(place, TRANSFER, 3, overwrite=overwrite) as part:
        os.rename(tmp_path / "aside", tmp_path / "disk")
        with pytest.raises((TargetExistsError, PathDeniedError)):
            part.finish(0o644, TIME, overwrite=overwrite)
    assert listed(tmp_path) == [PART, "disk"]
    assert not (tmp_path / "disk").is_file()


def test_an_abandoned_file_is_gone(place: Place, tmp_path: Path) -> None:
    part = create_part(place, TRANSFER, 3, overwrite=False)
    part.abandon()
    part.close()
    assert listed(tmp_path) == []
    part = create_part(place, TRANSFER, 3, overwrite=False)
    part.finish(0o600, TIME, overwrite=False)
    part.abandon()
    assert listed(tmp_path) == ["disk"]


def test_a_closed_one_is_found_again_and_removed_by_its_transfer(
    place: Place, tmp_path: Path
) -> None:
    create_part(place, TRANSFER, 3, overwrite=False).close()
    assert open_part(place, bytes(16), 3) is None
    again = open_part(place, TRANSFER, 3)
    assert again is not None
    again.close()
    remove_part(place, bytes(16))
    assert listed(tmp_path) == [PART]
    remove_part(place, TRANSFER)
    remove_part(place, TRANSFER)
    assert listed(tmp_path) == []
    assert open_part(place, TRANSFER, 3) is None


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_what_only_has_the_name_of_a_part_file_is_not_opened(
    place: Place, tmp_path: Path, kind: str
) -> None:
    make(tmp_path / PART, kind)
    assert open_part(place, TRANSFER, 3) is None
    if kind != "directory":
        create_part(place, TRANSFER, 3, overwrite=False).abandon()
        assert not (tmp_path / "elsewhere").exists()


def test_long_names_get_part_names_that_fit_and_differ() -> None:
    one, two = "x" * 254 + "1", "x" * 254 + "2"
    names = {part_name(name, TRANSFER) for name in (one, two, "ä" * 127)}
    assert len(names) == 3
    assert all(len(name.encode()) <= 255 for name in names)
    assert part_name("disk", TRANSFER) == PART


def test_a_longest_name_can_be_received(tmp_path: Path) -> None:
    name = "ü" * 127 + "x"
    with (
        Confinement([tmp_path]).open_target(name, into=False) as place,
        create_part(place, TRANSFER, 1, overwrite=False) as part,
    ):
        part.finish(0o600, TIME, overwrite=False)
    assert listed(tmp_path) == [name]


def test_clearing_keeps_what_is_held_and_nothing_else(place: Place) -> None:
    size = 9 * CHUNK + 100
    with create_part(place, TRANSFER, size, overwrite=False) as part:
        write(part, b"h" * CHUNK, 2 * CHUNK)
        write(part, b"g" * 5000, 3 * CHUNK - 1000)
        write(part, b"g" * 10, 6 * CHUNK + 7)
        write(part, b"g" * 50, size - 50)
        part.clear(bytes(runs.bits_of([(2, 1)], 10)), CHUNK)
        found = os.pread(part.descriptor, size, 0)
        held = b"h" * (CHUNK - 1000) + b"g" * 1000
        assert found == bytes(2 * CHUNK) + held + bytes(size - 3 * CHUNK)
        # Holes are not filled for it.
        assert os.fstat(part.descriptor).st_blocks * 512 <= CHUNK + 5 * 8192


def test_a_part_file_of_another_size_is_made_to_fit(place: Place, tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(b"x" * 10)
    part = open_part(place, TRANSFER, 7)
    assert part is not None
    part.clear(b"\0", CHUNK)
    part.close()
    assert (tmp_path / PART).read_bytes() == bytes(7)


def test_a_checkpoint_syncs_the_file_before_it_says_so(place: Place, tmp_path: Path) -> None:
    subject = Subject(TRANSFER, 0, 4 * CHUNK, CHUNK, bytes(32))
    data = os.urandom(CHUNK)
    steps: list[str] = []
    real_sync, real_write = os.fdatasync, os.pwrite
    journal = create_journal(tmp_path / "journal", subject)
    with create_part(place, TRANSFER, 4 * CHUNK, overwrite=False) as part:
        write(part, data, CHUNK)

        def sync(descriptor: int) -> None:
            steps.append("sync part" if descriptor == part.descriptor else "sync journal")
            real_sync(descriptor)

        def note(descriptor: int, data: bytes, offset: int) -> int:
            steps.append("write journal")
            return real_write(descriptor, data, offset)

        with mock.patch.object(os, "fdatasync", sync), mock.patch.object(os, "pwrite", note):
            leaf = array("I", [crc32(data)])
            assert part.checkpoint(journal, b"\x02", lambda first, count: leaf) == 1
    journal.close()
    assert steps == ["sync part", "write journal", "sync journal"]
    again = open_journal(tmp_path / "journal", subject)
    assert (bytes(again.bits), again.leaves[1]) == (b"\x02", crc32(data))
    again.close()


def test_after_a_failed_sync_nothing_is_called_durable(place: Place, tmp_path: Path) -> None:
    subject = Subject(TRANSFER, 0, CHUNK, CHUNK, bytes(32))
    journal = create_journal(tmp_path / "journal", subject)
    failure = OSError(errno.EIO, "Input/output error")
    leaf = array("I", [0])
    with create_part(place, TRANSFER, CHUNK, overwrite=False) as part:
        with (
            mock.patch.object(os, "fdatasync", side_effect=failure),
            pytest.raises(TargetWriteError, match="Input/output"),
        ):
            part.checkpoint(journal, b"\x01", lambda first, count: leaf)
        with pytest.raises(TargetWriteError, match="failed to keep"):
            part.checkpoint(journal, b"\x01", lambda first, count: leaf)
        with pytest.raises(TargetWriteError, match="failed to keep"):
            part.finish(0o600, TIME, overwrite=False)
    assert not any(journal.bits)
    journal.close()
    assert "disk" not in listed(tmp_path)


def test_a_full_disk_says_what_to_do(place: Place) -> None:
    failure = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch.object(os, "ftruncate", side_effect=failure),
        pytest.raises(TargetWriteError, match="No space left") as caught,
    ):
        create_part(place, TRANSFER, 3, overwrite=False)
    assert "free space" in caught.value.remedy
    assert place.path in str(caught.value)


def test_space_is_looked_at_beforehand(place: Place) -> None:
    check_space(place, 1)
    with pytest.raises(NoSpaceError, match=r"\d+ bytes are to come, and its file system has \d+"):
        check_space(place, 1 << 62)


def test_directories_are_made_and_finished(tmp_path: Path) -> None:
    with Confinement([tmp_path]).open_target("dir", into=False) as place:
        assert not is_directory(place)
        create_directory(place)
        create_directory(place)
        assert is_directory(place)
        (tmp_path / "dir" / "file").touch()
        finish_directory(place, 0o7700, TIME)
        found = (tmp_path / "dir").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o700, TIME)


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_directory_takes_the_place_of_nothing(tmp_path: Path, kind: str) -> None:
    make(tmp_path / "dir", kind)
    with Confinement([tmp_path]).open_target("dir", into=False) as place:
        with pytest.raises(TargetExistsError):
            create_directory(place)
        with pytest.raises(TargetWriteError):
            finish_directory(place, 0o755, TIME)

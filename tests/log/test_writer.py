"""The log file: rotated, bounded, and never in anybody's way."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from novacron.log import writer as module
from novacron.log.writer import LogWriter

DEADLINE = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "novacron.log"


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def open_writer(
    path: Path, failures: list[str], no_leaks: None
) -> Iterator[Callable[..., LogWriter]]:
    writers: list[LogWriter] = []

    def make(max_bytes: int = 10**6, count: int = 3, **options: int) -> LogWriter:
        opened = threading.Event()
        writer = LogWriter(
            path, max_bytes, count, on_failure=failures.append, on_open=opened.set, **options
        )
        writers.append(writer)
        writer.start()
        assert opened.wait(DEADLINE)
        return writer

    yield make
    for writer in writers:
        writer.close(DEADLINE)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_lines_are_written_in_order_and_closing_waits_for_them(
    path: Path, open_writer: Callable[..., LogWriter]
) -> None:
    writer = open_writer()
    for number in range(1000):
        writer.put(f"line {number}")
    assert writer.close(DEADLINE)
    assert lines(path) == [f"line {number}" for number in range(1000)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_of_an_earlier_process_is_continued_on_a_new_line(
    path: Path, open_writer: Callable[..., LogWriter]
) -> None:
    path.parent.mkdir()
    path.write_text("whole\nhalf a li")
    writer = open_writer()
    writer.put("next")
    writer.close(DEADLINE)
    assert lines(path) == ["whole", "half a li", "next"]


def test_the_file_is_rotated_at_its_size_and_only_so_many_are_kept(
    path: Path, open_writer: Callable[..., LogWriter]
) -> None:
    writer = open_writer(max_bytes=30, count=2)
    for number in range(10):
        writer.put(f"line {number:04}")  # ten bytes each with its end
    writer.close(DEADLINE)
    assert lines(path) == ["line 0009"]
    assert lines(path.with_name("novacron.log.1")) == [f"line {n:04}" for n in (6, 7, 8)]
    assert lines(path.with_name("novacron.log.2")) == [f"line {n:04}" for n in (3, 4, 5)]
    assert sorted(os.listdir(path.parent)) == ["novacron.log", "novacron.log.1", "novacron.log.2"]


def test_a_line_larger_than_the_file_gets_a_file_of_its_own(
    path: Path, open_writer: Callable[..., LogWriter]
) -> None:
    writer = open_writer(max_bytes=5)
    writer.put("first")
    writer.put("x" * 100)
    writer.close(DEADLINE)
    assert lines(path) == ["x" * 100]


def test_a_file_that_somebody_moved_is_followed(
    path: Path, open_writer: Callable[..., LogWriter]
) -> None:
    writer = open_writer()
    path.rename(path.with_name("moved"))
    writer.put("after")
    writer.close(DEADLINE)
    assert lines(path) == ["after"]


def test_a_link_in_place_of_the_file_is_not_followed(
    path: Path, open_writer: Callable[..., LogWriter], failures: list[str], tmp_path: Path
) -> None:
    path.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path.symlink_to(victim)
    writer = open_writer()
    writer.put("x")
    assert not writer.close(DEADLINE)
    assert victim.read_text() == "untouched"
    assert len(failures) == 1


def test_a_hanging_disk_blocks_nobody_and_what_is_lost_is_counted(
    path: Path, open_writer: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, go_on = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        hanging.set()
        assert go_on.wait(DEADLINE)
        return write(descriptor, data)

    writer = open_writer(max_queued=100)
    monkeypatch.setattr(os, "write", slow)
    writer.put("first")
    assert hanging.wait(DEADLINE)
    for number in range(50):
        writer.put(f"line {number:05}")  # ten characters: ten of them fit
    assert writer.dropped == 40
    go_on.set()
    writer.close(DEADLINE)
    found = lines(path)
    assert found[:2] == ["first", "line 00000"]
    assert len(found) == 12
    assert found[-1] == "40 log lines were lost"


def test_closing_does_not_wait_longer_than_it_was_told(
    path: Path, open_writer: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = os.write

    def hang(descriptor: int, data: bytes) -> int:
        go_on.wait(DEADLINE)
        return write(descriptor, data)

    writer = open_writer()
    monkeypatch.setattr(os, "write", hang)
    writer.put("x")
    assert not writer.close(0.01)
    go_on.set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_told_once_and_tried_again_later(
    path: Path,
    open_writer: Callable[..., LogWriter],
    monkeypatch: pytest.MonkeyPatch,
    failures: list[str],
    number: int,
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    tried = threading.Semaphore(0)
    write, refuse = os.write, True

    def refusing(descriptor: int, data: bytes) -> int:
        try:
            if refuse:
                raise OSError(number, os.strerror(number))
            return write(descriptor, data)
        finally:
            tried.release()

    writer = open_writer()
    monkeypatch.setattr(os, "write", refusing)
    writer.put("lost")
    assert tried.acquire(timeout=DEADLINE)
    wait_for(lambda: writer.dropped == 1)
    writer.put("lost as well")
    wait_for(lambda: writer.dropped == 2)
    assert failures == [os.strerror(number)]
    assert writer.failure == os.strerror(number)
    refuse = False
    now += module.RETRY_AFTER
    writer.put("back")
    assert tried.acquire(timeout=DEADLINE)
    assert writer.close(DEADLINE)
    assert writer.failure is None
    assert lines(path)[0] == "back"


def wait_for(condition: Callable[[], bool]) -> None:
    """Another thread makes *condition* true; there is nothing else to wait on."""
    ticks = threading.Event()
    for _ in range(int(DEADLINE * 200)):
        if condition():
            return
        ticks.wait(0.005)
    raise AssertionError("waited in vain")


def test_a_directory_that_cannot_be_made_is_told_and_lines_are_counted(
    path: Path, open_writer: Callable[..., LogWriter], failures: list[str]
) -> None:
    path.parent.write_text("a file, not a directory")
    writer = open_writer()
    writer.put("x")
    assert not writer.close(DEADLINE)
    assert writer.dropped == 1
    assert len(failures) == 1


def test_a_line_after_closing_is_counted_as_lost(open_writer: Callable[..., LogWriter]) -> None:
    writer = open_writer()
    writer.close(DEADLINE)
    writer.put("too late")
    assert writer.dropped == 1


def test_a_writer_that_was_never_started_closes(path: Path) -> None:
    assert LogWriter(path, 1000, 1, on_failure=print).close(1)

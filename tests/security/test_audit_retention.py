"""Old files of the audit log go, and what is left says so and is verifiable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from novacron.data_directory import DataDirectory
from novacron.security import audit_retention
from novacron.security.audit import AuditLog
from novacron.security.audit_files import audit_files, first_seq
from novacron.security.audit_head import AuditHead
from novacron.security.audit_record import Entry, parse, seal
from novacron.security.audit_verification import Verification, verify
from tests.security.stand_ins import prepared

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


def opened(directory: DataDirectory, clock: Clock | None = None, **keep: int) -> AuditLog:
    log = AuditLog(directory, 1200, now=clock or Clock(), **keep)  # type: ignore[arg-type]
    log.open_blocking()
    return log


def fill(log: AuditLog, count: int = 20) -> None:
    for number in range(count):
        log.append_blocking("test.action", "tester", f"thing {number}")


def check(directory: DataDirectory) -> Verification:
    return verify(directory.audit, AuditHead(directory.secrets / "audit.head"))


def problems(directory: DataDirectory) -> list[str]:
    return [str(problem) for problem in check(directory).problems]


def records(directory: DataDirectory) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in audit_files(directory.audit)
        for line in path.read_bytes().splitlines()
    ]


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return prepared(tmp_path)


def test_everything_stays_unless_told_otherwise(directory: DataDirectory) -> None:
    log = opened(directory)
    fill(log)
    log.prune_blocking()
    assert first_seq(audit_files(directory.audit)[0]) == 1
    assert check(directory).pruned_through == 0


def test_surplus_files_go_when_a_new_one_begins_and_the_rest_verifies(
    directory: DataDirectory,
) -> None:
    log = opened(directory, keep_files=3)
    fill(log, 40)
    # One more where the note itself begins a file.
    assert len(audit_files(directory.audit)) <= 4
    found = check(directory)
    assert found.ok
    assert found.first_seq is not None
    assert found.pruned_through == found.first_seq - 1 > 0
    noted = [entry for entry in records(directory) if entry["action"] == "audit.pruned"]
    assert noted[-1]["details"]["files"][-1]["last_seq"] == found.pruned_through
    log.close_blocking()
    assert opened(directory, keep_files=3).failure == ""
    assert check(directory).ok


def test_files_go_when_their_last_record_is_older_than_they_are_kept(
    directory: DataDirectory,
) -> None:
    clock = Clock()
    log = opened(directory, clock, keep_days=30)
    fill(log)
    before = audit_files(directory.audit)
    clock.time += 30 * DAY
    log.prune_blocking()
    assert audit_files(directory.audit) == before
    clock.time += 1
    log.prune_blocking()
    # Not the one that is written to, however old what is in it.
    assert before[-1] in audit_files(directory.audit)
    assert not set(before[:-1]) & set(audit_files(directory.audit))
    assert check(directory).ok


def test_many_files_go_in_several_turns(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_retention, "MOST_AT_ONCE", 2)
    fill(opened(directory), 40)
    log = opened(directory, keep_files=2)
    while len(audit_files(directory.audit)) > 3:
        before = len(audit_files(directory.audit))
        log.prune_blocking()
        assert before - len(audit_files(directory.audit)) in (1, 2)
        assert check(directory).ok


def test_whoever_removes_a_file_himself_is_found(directory: DataDirectory) -> None:
    log = opened(directory, keep_files=3)
    fill(log, 40)
    first, second, *_ = audit_files(directory.audit)
    first.unlink()
    assert problems(directory) == [
        f"{second.name}:1: missing before it: 1 to {first_seq(second) - 1}"
    ]


def test_whoever_writes_the_first_record_left_anew_is_found(directory: DataDirectory) -> None:
    log = opened(directory, keep_files=3)
    fill(log, 40)
    path = audit_files(directory.audit)[0]
    lines = path.read_bytes().splitlines()
    record = parse(lines[0])
    entry = Entry(record["time"], "x", "x", "x", "success", "", {})
    lines[0] = seal(entry, record["seq"], record["prev"])[0].rstrip()
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert any("does not follow" in problem for problem in problems(directory))


def test_a_crash_between_the_note_and_the_removal_leaves_a_log_that_verifies(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(opened(directory), 40)
    log = opened(directory, keep_files=2)

    class Killed(BaseException):
        pass

    removed: list[Path] = []
    unlink = Path.unlink

    def dies(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 2:
            raise Killed
        removed.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", dies)
    with pytest.raises(Killed):
        log.prune_blocking()
    monkeypatch.undo()
    found = check(directory)
    assert found.ok
    assert found.pruned_through == first_seq(audit_files(directory.audit)[0]) - 1
    again = opened(directory, keep_files=2)
    again.prune_blocking()
    assert check(directory).ok


@pytest.mark.parametrize("damage", ["last", "first", "between"])
def test_files_of_a_log_that_was_changed_stay_and_health_can_say_why(
    directory: DataDirectory, damage: str
) -> None:
    fill(opened(directory), 40)
    files = audit_files(directory.audit)
    if damage == "between":
        lines = files[1].read_bytes().splitlines(keepends=True)
        files[1].write_bytes(b"".join(lines[1:]))
    else:
        path = files[0] if damage == "last" else files[1]
        lines = path.read_bytes().splitlines(keepends=True)
        index = -1 if damage == "last" else 0
        lines[index] = lines[index].replace(b"tester", b"nobody")
        path.write_bytes(b"".join(lines))
    log = opened(directory, keep_files=2)
    log.prune_blocking()
    assert files[0].exists()
    assert files[0 if damage == "last" else 1].name in log.status()["kept_though_old"]


def test_a_log_that_was_restarted_goes_like_any_other(directory: DataDirectory) -> None:
    fill(opened(directory), 10)
    last = audit_files(directory.audit)[-1]
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))
    log = AuditLog(directory, 1200, keep_files=2, now=Clock())
    assert log.open_blocking() != []
    fill(log, 30)
    assert log.status()["kept_though_old"] == ""
    assert len(audit_files(directory.audit)) <= 3


def test_a_verification_beside_a_removal_is_right(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest file goes after the verification has seen what files there are."""
    from novacron.security import audit_verification

    fill(opened(directory), 40)
    log = opened(directory, keep_files=2)
    look = audit_verification._files
    turns = iter([True])

    def look_then_lose(path: Path) -> list[Path]:
        found = look(path)
        if next(turns, False):
            monkeypatch.setattr(audit_verification, "held", no_lock)
            log.prune_blocking()
        return found

    from contextlib import contextmanager

    @contextmanager
    def no_lock(path: Path) -> Any:
        yield

    monkeypatch.setattr(audit_verification, "held", no_lock)
    monkeypatch.setattr(audit_verification, "_files", look_then_lose)
    assert check(directory).ok

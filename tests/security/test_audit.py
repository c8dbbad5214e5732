"""The audit log: written durably, continued after crashes, and honest about failures."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.data_directory import DataDirectory
from novacron.log.redaction import register_secret
from novacron.security import audit as module
from novacron.security.audit import AuditLog
from novacron.security.audit_record import GENESIS, AuditRecordError
from novacron.security.audit_verification import Verification
from novacron.security.errors import AuditUnavailableError, StorageFailedError
from tests.security.stand_ins import prepared

DEADLINE = 20.0


def opened(directory: DataDirectory, **arguments: Any) -> AuditLog:
    log = AuditLog(directory, **arguments)
    assert log.open_blocking() == []
    return log


def filled(directory: DataDirectory, count: int = 5, **arguments: Any) -> AuditLog:
    log = opened(directory, **arguments)
    for number in range(count):
        log.append_blocking("test.action", "tester", f"thing {number}", details={"n": number})
    return log


def problems(verification: Verification) -> list[str]:
    return [str(problem) for problem in verification.problems]


def records(directory: DataDirectory) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(directory.audit.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


async def test_an_append_is_on_the_disk_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepared(tmp_path)
    log = opened(directory)
    synced: list[int] = []
    real = os.fdatasync

    def note(descriptor: int) -> None:
        real(descriptor)
        synced.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", note)
    with trio.fail_after(DEADLINE):
        await log.append("a.b", "me", "it", "denied", "10.0.0.1", {"why": "because"})
    # The record, and the head.
    assert len(synced) == 2
    (record,) = records(directory)
    assert record["prev"] == GENESIS
    assert record["seq"] == 1
    assert (record["action"], record["actor"], record["target"]) == ("a.b", "me", "it")
    assert (record["outcome"], record["source"]) == ("denied", "10.0.0.1")
    assert record["details"] == {"why": "because"}
    assert log.verify().ok


async def test_a_password_that_is_a_word_of_the_log_hides_no_records(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    log = opened(directory)
    for password in ("create", "started"):
        register_secret(password)
    with trio.fail_after(DEADLINE):
        await log.append("token.create", "me", "what is created", "started")
    (record,) = records(directory)
    assert (record["action"], record["outcome"]) == ("token.create", "started")
    assert record["target"] == "what is [redacted]d"


async def test_what_arrives_during_a_write_shares_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepared(tmp_path)
    log = opened(directory)
    writes: list[int] = []
    real = log._append

    def note(entries: list[Any]) -> None:
        writes.append(len(entries))
        real(entries)

    monkeypatch.setattr(log, "_append", note)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(log.append, "a", f"actor {number}")
    assert sum(writes) == 100
    assert len(writes) <= 3
    verification = log.verify()
    assert verification.ok, problems(verification)
    assert verification.records == 100


async def test_a_caller_that_gives_up_leaves_the_others_alone(tmp_path: Path) -> None:
    log = opened(prepared(tmp_path))
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(log.append, "a", f"actor {number}")
            with trio.CancelScope() as scope:
                scope.cancel()
                await log.append("never", "nobody")
    assert log.verify().records == 10
    assert all(record["action"] == "a" for record in records(DataDirectory(tmp_path)))


def test_the_chain_goes_on_across_files_and_boots(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    for _ in range(3):
        filled(directory, 20, max_bytes=1500).close_blocking()
    files = sorted(directory.audit.glob("*.jsonl"))
    assert len(files) > 5
    assert all(path.stat().st_size <= 1500 for path in files)
    verification = AuditLog(directory).verify()
    assert verification.ok, problems(verification)
    assert (verification.first_seq, verification.last_seq) == (1, 60)


def _append_many(root: str, count: int) -> None:
    log = AuditLog(DataDirectory(Path(root)))
    log.open_blocking()
    for _ in range(count):
        log.append_blocking("a", f"process {os.getpid()}")


def test_the_node_and_the_command_line_may_write_at_the_same_time(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(str(tmp_path), 30)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    verification = AuditLog(directory).verify()
    assert verification.ok, problems(verification)
    assert verification.records == 90


@pytest.mark.parametrize("torn", [b"\0" * 200, b'{"action":"te', b"\0"])
def test_a_line_that_a_crash_has_torn_is_set_aside_and_recorded(
    tmp_path: Path, torn: bytes
) -> None:
    directory = prepared(tmp_path)
    filled(directory).close_blocking()
    (path,) = directory.audit.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(torn)
    before = AuditLog(directory).verify()
    assert not before.ok
    assert "not complete" in problems(before)[0]
    log = AuditLog(directory)
    (warning,) = log.open_blocking()
    assert "incomplete, as a crash leaves it" in warning
    assert [kept.read_bytes() for kept in directory.quarantine_area.iterdir()] == [torn]
    assert records(directory)[-1]["action"] == "audit.repaired"
    log.append_blocking("after", "me")
    verification = log.verify()
    assert verification.ok, problems(verification)
    assert AuditLog(directory).open_blocking() == []


def test_records_that_a_crash_left_without_their_head_are_kept(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    log = filled(directory)
    head = log.head.path.read_bytes()
    log.append_blocking("written", "before the crash")
    log.close_blocking()
    log.head.path.write_bytes(head)
    again = opened(directory)
    again.append_blocking("after", "me")
    verification = again.verify()
    assert verification.ok, problems(verification)
    assert [r["action"] for r in records(directory)][-2:] == ["written", "after"]


def test_a_file_a_crash_left_empty_is_removed(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    filled(directory).close_blocking()
    (directory.audit / "audit-000000000006.jsonl").touch()
    log = opened(directory)
    log.append_blocking("after", "me")
    assert log.verify().ok
    assert len(list(directory.audit.glob("*.jsonl"))) == 1


def test_half_a_head_is_enough(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    log = filled(directory)
    log.close_blocking()
    data = bytearray(log.head.path.read_bytes())
    newest = 512 if b'"seq": 5' in data[512:] else 0
    data[newest : newest + 512] = bytes(512)
    log.head.path.write_bytes(data)
    again = opened(directory)
    again.append_blocking("after", "me")
    assert again.verify().ok


def cut_end(directory: DataDirectory) -> None:
    (path,) = directory.audit.glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))


def change_last(directory: DataDirectory) -> None:
    (path,) = directory.audit.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"thing 4", b"thing 9"))


def remove_all(directory: DataDirectory) -> None:
    for path in directory.audit.glob("*.jsonl"):
        path.unlink()


def zero_all(directory: DataDirectory) -> None:
    for path in directory.audit.glob("*.jsonl"):
        path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut_end, "2 records are missing at the end"),
        (change_last, "the last line of"),
        (remove_all, "its files are gone, which held 5 records"),
        (zero_all, "its files are gone, which held 5 records"),
    ],
)
def test_a_log_that_was_changed_is_left_as_it_is_and_goes_on_in_a_new_file(
    tmp_path: Path, harm: Any, reason: str
) -> None:
    directory = prepared(tmp_path)
    filled(directory).close_blocking()
    harm(directory)
    left = {path.name: path.read_bytes() for path in directory.audit.glob("*.jsonl")}
    log = AuditLog(directory)
    warnings = log.open_blocking()
    assert reason in warnings[-1]
    assert "audit-broken" in warnings[-1]
    log.append_blocking("after", "me")
    log.close_blocking()
    if harm is not zero_all:
        for name, content in left.items():
            assert (directory.audit / name).read_bytes() == content
    restarted = next(
        json.loads(line)
        for line in (directory.audit / "audit-000000000006.jsonl").read_bytes().splitlines()
        if b"audit.restarted" in line
    )
    assert restarted["details"]["after_seq"] == 5
    assert not log.verify().ok
    from novacron.security.audit_verification import verify

    later = verify(directory.audit, log.head, after=5)
    assert later.ok, problems(later)
    assert opened(directory).status()["last_seq"] == later.last_seq


@pytest.mark.parametrize(("harm", "said"), [("missing", "was missing"), ("zeroed", "was damaged")])
def test_a_head_that_is_gone_is_made_anew_and_that_is_recorded(
    tmp_path: Path, harm: str, said: str
) -> None:
    directory = prepared(tmp_path)
    log = filled(directory)
    log.close_blocking()
    if harm == "missing":
        log.head.path.unlink()
    else:
        log.head.path.write_bytes(bytes(1024))
    assert not log.verify().ok
    again = AuditLog(directory)
    (warning,) = again.open_blocking()
    assert said in warning
    assert records(directory)[-1]["action"] == "audit.head_rebuilt"
    assert again.verify().ok


class FullDisk:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._real = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: Any) -> int:
        if not self.full:
            return self._real(descriptor, data)
        self._real(descriptor, bytes(data)[:10])
        raise OSError(28, "No space left on device")


async def test_a_full_disk_refuses_what_should_be_recorded_and_recovers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(prepared(tmp_path))
    disk = FullDisk(monkeypatch)
    disk.full = True
    with trio.fail_after(DEADLINE):
        for _ in range(2):
            with pytest.raises(AuditUnavailableError) as caught:
                await log.append("a", "me")
            assert caught.value.why == "the disk is full"
            assert caught.value.key == "security.audit_on_failure"
            assert "audit-broken" in caught.value.remedy
        assert log.status()["failure"] == "the disk is full"
        disk.full = False
        await log.append("b", "me")
    assert log.status()["failure"] == ""
    verification = log.verify()
    assert verification.ok, problems(verification)
    assert verification.records == 6


async def test_with_the_policy_to_continue_losses_are_counted_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = prepared(tmp_path)
    log = filled(directory, on_failure="continue")
    disk = FullDisk(monkeypatch)
    disk.full = True
    with trio.fail_after(DEADLINE):
        for _ in range(3):
            await log.append("lost", "me")
        disk.full = False
        await log.append("kept", "me")
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"]
    last = records(directory)[-2:]
    assert [(r["action"], r["details"]) for r in last] == [
        ("audit.lost", {"records": 3}),
        ("kept", {}),
    ]
    assert log.verify().ok


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_log_that_cannot_be_opened_stops_the_boot_or_is_said(
    tmp_path: Path, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "recover", refuse)
    log = AuditLog(prepared(tmp_path), on_failure=policy)
    if policy == "stop":
        with pytest.raises(StorageFailedError, match="the disk reports an error"):
            log.open_blocking()
    else:
        assert "goes on without it" in log.open_blocking()[0]


async def test_a_disk_that_hangs_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_LIMIT", 3)
    log = opened(prepared(tmp_path))
    log._waiting.extend(module._Pending(log._entry("a", "b", "", "", "", None)) for _ in range(3))
    with pytest.raises(AuditUnavailableError, match="3 records wait for the disk"):
        await log.append("a", "me")


def test_secrets_and_unruly_details_do_not_get_in(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    log = opened(directory)
    register_secret("planted-audit-secret")
    log.append_blocking(
        "a",
        "planted-audit-secret",
        "planted-audit-secret",
        details={"list": ["x planted-audit-secret"], "planted-audit-secret": 1},
    )
    with pytest.raises(AuditRecordError):
        log.append_blocking("a", "b", details={"x": object()})
    with pytest.raises(AuditRecordError):
        log.append_blocking("a", "b", details={"x": float("nan")})
    log.append_blocking("a", "\U0001f600" * 5000, "\0\n", details={"x": "y" * 200_000})
    verification = log.verify()
    assert verification.ok, problems(verification)
    text = b"".join(path.read_bytes() for path in directory.audit.iterdir())
    assert b"planted-audit-secret" not in text
    assert records(directory)[-1]["details"] == {"left_out_bytes": 200_008}


def test_a_log_removed_under_a_running_node_is_noticed_by_the_next_append(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    log = filled(directory)
    remove_all(directory)
    log.append_blocking("after", "me")
    assert [record["action"] for record in records(directory)] == ["audit.restarted", "after"]
    assert not log.verify().ok

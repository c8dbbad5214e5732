"""The audit log while threads, locks and deadlines are short: no caller is told what is not so."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from novacron.data_directory import DataDirectory
from novacron.security import audit as module
from novacron.security.audit import AuditLog
from novacron.security.errors import AuditUnavailableError
from novacron.security.filelock import held
from tests.security.stand_ins import prepared

DEADLINE = 20.0


def actors(directory: DataDirectory) -> list[str]:
    return [
        json.loads(line)["actor"]
        for path in sorted(directory.audit.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


async def test_who_gives_up_before_a_thread_is_free_takes_nobody_elses_record_with_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepared(tmp_path)
    log = AuditLog(directory)
    log.open_blocking()
    writing, busy = threading.Event(), threading.Event()
    write = log._write

    def slowly(batch: list[object]) -> None:
        writing.wait()
        write(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "_write", slowly)
    recorded: list[str] = []

    async def record(actor: str, scope: trio.CancelScope) -> None:
        with scope:
            await log.append("test.action", actor)
            recorded.append(actor)

    impatient = trio.CancelScope()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record, "first", trio.CancelScope())
            await wait_all_tasks_blocked()
            # While the first is written two more come, of whom one takes both to the disk.
            nursery.start_soon(record, "impatient", impatient)
            await wait_all_tasks_blocked()
            nursery.start_soon(record, "patient", trio.CancelScope())
            await wait_all_tasks_blocked()
            threads = trio.to_thread.current_default_thread_limiter()
            for _ in range(int(threads.total_tokens)):
                nursery.start_soon(trio.to_thread.run_sync, busy.wait)
            await wait_all_tasks_blocked()
            writing.set()
            while "first" not in recorded:
                await trio.sleep(0.001)
            await wait_all_tasks_blocked()
            impatient.cancel()
            await wait_all_tasks_blocked()
            busy.set()
    assert recorded == ["first", "patient"]
    assert actors(directory) == ["first", "patient"]
    assert log.verify().ok
    log.close_blocking()


async def test_a_process_that_keeps_the_lock_is_met_as_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A command that was stopped (Ctrl-Z) in the middle of its own record, for example.
    directory = prepared(tmp_path)
    monkeypatch.setattr(module, "held", lambda path: held(path, patience=0.01))
    with trio.fail_after(DEADLINE):
        log, strict = AuditLog(directory, on_failure="continue"), AuditLog(directory)
        log.open_blocking()
        strict.open_blocking()
        with held(directory.audit / "lock"):
            await log.append("test.action", "lost")
            assert "another process has held it" in log.failure
            with pytest.raises(AuditUnavailableError, match="another process has held it"):
                await strict.append("test.action", "refused")
            # A boot meanwhile says so and goes on.
            (warning,) = AuditLog(directory, on_failure="continue").open_blocking()
            assert "another process has held it" in warning
        await log.append("test.action", "after")
    assert log.failure == ""
    assert actors(directory) == ["system", "after"]
    for each in (log, strict):
        each.close_blocking()

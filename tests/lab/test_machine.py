"""The guest is booted as meant, watched to its end, and its end is judged."""

from __future__ import annotations

import io
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.machine.command import (
    STATUS_BASE,
    Laboratory,
    LaboratoryError,
    boot_command,
    find,
    guest_script,
)
from tests.lab.machine.outcome import TAIL_LINES, End, judge
from tests.lab.machine.watch import Limits, Watched, watch

PATIENT = Limits(total=60.0, silence=60.0)


def prepared(checkout: Path, version: str = "6.1.0-1-amd64") -> Laboratory:
    """A checkout with what the laboratory looks for, and an `enter` that enters nothing."""
    for name in (
        f".lab/kernel/boot/vmlinuz-{version}",
        f".lab/kernel/lib/modules/{version}/modules.dep",
        ".venv/bin/python",
        ".venv/bin/vng",
        "tests/lab/machine/enter",
    ):
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('shift 2\nexec env "$@"\n')
        path.chmod(0o755)
    return find(checkout)


def test_a_prepared_laboratory_is_found(tmp_path: Path) -> None:
    laboratory = prepared(tmp_path)
    assert laboratory.version == "6.1.0-1-amd64"
    assert laboratory.image == tmp_path / ".lab/kernel/boot/vmlinuz-6.1.0-1-amd64"


def test_a_checkout_that_is_not_prepared_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(LaboratoryError, match="make lab"):
        find(tmp_path)
    prepared(tmp_path)
    (tmp_path / ".venv/bin/vng").unlink()
    with pytest.raises(LaboratoryError, match=r"vng is missing.*make lab"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("checkout", "reason"),
    [
        ("/run/novacron", "has a /run of its own"),
        ("/var/tmp/novacron", "has a /var/tmp of its own"),
        ("/srv/nova cron", "no path with a blank"),
    ],
)
def test_a_checkout_that_the_guest_would_not_see_is_refused(checkout: str, reason: str) -> None:
    with pytest.raises(LaboratoryError, match=reason):
        find(Path(checkout))


def test_the_guest_can_write_nothing_on_the_host(tmp_path: Path) -> None:
    command = boot_command(prepared(tmp_path), tmp_path / "script")
    assert "--rw" not in command
    [share] = [word for word in command if word.startswith("--qemu-opts=")]
    assert "readonly=on" in share
    assert command[-2:] == ["--exec", f"sh {tmp_path}/script"]


@pytest.mark.parametrize("status", [0, 1, 5])
def test_the_script_passes_on_arguments_output_and_status(tmp_path: Path, status: int) -> None:
    laboratory = prepared(tmp_path)
    laboratory.python.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$LAB_GUEST" "$@"\necho late >&2\nexit {status}\n'
    )
    script = guest_script(laboratory, ["-k", "one or two", "$HOME"])
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["1", "-m", "pytest", "-k", "one or two", "$HOME", "late"]
    assert done.returncode == STATUS_BASE + status


def watched(script: str, limits: Limits = PATIENT) -> tuple[Watched, bytes]:
    output = io.BytesIO()
    return watch(["sh", "-c", script], os.environ, limits, output), output.getvalue()


def test_output_is_passed_on_and_the_console_kept() -> None:
    result, output = watched(r"echo passed; printf 'one\r\ntwo\nrest' >&2; exit 103")
    assert output == b"passed\n"
    assert (result.status, result.end) == (103, End.BY_ITSELF)
    assert list(result.console) == ["one", "two", "rest"]


def test_output_is_passed_on_before_its_line_ends(tmp_path: Path) -> None:
    class Answering(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            (tmp_path / "answer").touch()
            return super().write(data)

    output = Answering()
    script = f"printf begun; until [ -e {tmp_path}/answer ]; do sleep 0.02; done; echo ', ended'"
    result = watch(["sh", "-c", script], os.environ, PATIENT, output)
    assert output.getvalue() == b"begun, ended\n"
    assert result.end is End.BY_ITSELF


def wait_ended(pid: int) -> None:
    """Returns when *pid* is dead, also where nobody has collected it; a test's own deadline holds."""
    stat = Path(f"/proc/{pid}/stat")
    while True:
        try:
            state = stat.read_text().rpartition(") ")[2]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state.startswith("Z"):
            return
        time.sleep(0.02)


def test_silence_ends_the_guest_and_whatever_it_started() -> None:
    result, output = watched("sleep 600 & echo $!; wait", Limits(total=60.0, silence=0.5))
    assert (result.end, result.limit) == (End.SILENT, 0.5)
    wait_ended(int(output))


def test_an_emulator_that_outlives_its_parent_is_ended() -> None:
    result, output = watched("sleep 600 & echo $!", Limits(total=60.0, silence=0.5))
    assert result.end is End.SILENT
    wait_ended(int(output))


def test_a_talkative_guest_ends_at_the_deadline_for_the_whole() -> None:
    script = "while :; do echo x; sleep 0.02; done"
    result, output = watched(script, Limits(total=0.5, silence=60.0))
    assert (result.end, result.limit) == (End.OVERDUE, 0.5)
    assert output.startswith(b"x\n")


def test_a_kernel_that_only_complains_is_silent() -> None:
    script = "while :; do echo stalled >&2; sleep 0.02; done"
    result, _ = watched(script, Limits(total=60.0, silence=0.5))
    assert result.end is End.SILENT
    assert result.console[0] == "stalled"


CONSOLE = [f"line {number}" for number in range(200)]
PANIC = "[   60.637514] Kernel panic - not syncing: Fatal exception in interrupt"
WARNING = "[   12.000000] WARNING: CPU: 1 PID: 7 at drivers/infiniband/sw/rxe/rxe_qp.c:1 f+0x1/0x2"


@pytest.mark.parametrize("status", range(6))
def test_pytests_status_is_the_runs(status: int) -> None:
    outcome = judge(STATUS_BASE + status, End.BY_ITSELF, 0.0, CONSOLE)
    assert (outcome.status, outcome.failure, outcome.tail) == (status, "", ())


@pytest.mark.parametrize("status", [0, 1, 99, 106, 226, 255, -9])
def test_any_other_status_is_the_guests_failure(status: int) -> None:
    outcome = judge(status, End.BY_ITSELF, 0.0, CONSOLE)
    assert outcome.status == 1
    assert f"exit status {status}" in outcome.failure
    assert outcome.tail == tuple(CONSOLE[-TAIL_LINES:])


def test_a_panic_is_named_and_shown() -> None:
    outcome = judge(255, End.BY_ITSELF, 0.0, [*CONSOLE, PANIC, "Call Trace:"])
    assert outcome.status == 1
    assert outcome.failure == "panicked: Fatal exception in interrupt"
    assert outcome.tail[-2:] == (PANIC, "Call Trace:")


@pytest.mark.parametrize(
    ("end", "words"),
    [(End.OVERDUE, "did not end within 900 s"), (End.SILENT, "said nothing for 900 s")],
)
def test_a_deadline_is_a_failure_also_after_good_news(end: End, words: str) -> None:
    outcome = judge(STATUS_BASE, end, 900.0, CONSOLE)
    assert outcome.status == 1
    assert words in outcome.failure
    assert outcome.tail


def test_an_interrupted_run_shows_no_console() -> None:
    outcome = judge(-2, End.INTERRUPTED, 0.0, CONSOLE)
    assert (outcome.status, outcome.tail) == (130, ())


def test_a_complaint_of_the_kernel_is_reported_though_the_tests_passed() -> None:
    outcome = judge(STATUS_BASE, End.BY_ITSELF, 0.0, ["booted", WARNING, "done"])
    assert (outcome.status, outcome.complaints) == (0, (WARNING,))

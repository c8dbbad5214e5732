"""``python -m tests.lab.machine [PYTEST ARGUMENT]...``: boots the guest once, runs its tests.

Ends with pytest's exit status, or with 1 where the guest itself failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.machine.command import (
    Laboratory,
    LaboratoryError,
    boot_command,
    find,
    guest_script,
)
from tests.lab.machine.outcome import judge
from tests.lab.machine.watch import Limits, watch

CHECKOUT = Path(__file__).resolve().parents[3]
TESTS = "tests/lab/guest"

TEST_SECONDS = 120
"""For one test: a Python that imports half the node takes 15 s under emulation, and two of them on
a machine that is busy otherwise four times as long."""

LIMITS = Limits(total=900.0, silence=TEST_SECONDS + 60.0)
"""A run takes about a minute on an idle machine of two cores. The silence has to be longer than a
test and than the boot, 15 s to a minute."""


def main(arguments: list[str]) -> int:
    try:
        laboratory = find(CHECKOUT)
    except LaboratoryError as exc:
        print(f"test-lab: {exc}", file=sys.stderr)
        return 1
    # `-k word` chooses among all of them; a file chooses itself.
    which = [] if any(argument.startswith(TESTS) for argument in arguments) else [TESTS]
    # Whoever ends this ends the guest: it would go on alone otherwise, in a session of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _compile(laboratory)
    print(f"Booting Linux {laboratory.version} as a guest for {TESTS}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="run-", dir=CHECKOUT / ".lab") as folder:
        script = Path(folder, "script")
        defaults = ["-v", "-p", "no:xdist", f"--timeout={TEST_SECONDS}"]
        script.write_text(guest_script(laboratory, [*defaults, *which, *arguments]))
        watched = watch(
            boot_command(laboratory, script),
            _environment(laboratory, Path(folder)),
            LIMITS,
            sys.stdout.buffer,
        )
    log = CHECKOUT / ".lab/console.log"
    log.write_text("".join(f"{line}\n" for line in watched.console))
    outcome = judge(watched.status, watched.end, watched.limit, list(watched.console))
    for line in outcome.complaints:
        print(f"test-lab: the guest's kernel complained: {line}", file=sys.stderr)
    if outcome.tail:
        print(
            "\n---- the end of the guest's console",
            *outcome.tail,
            "----",
            sep="\n",
            file=sys.stderr,
        )
    if outcome.failure:
        print(f"test-lab: the guest {outcome.failure}.", file=sys.stderr)
    if outcome.status:
        print(f"test-lab: the whole console is in {log.relative_to(CHECKOUT)}", file=sys.stderr)
    print(f"The guest ran for {time.monotonic() - started:.0f} s", flush=True)
    return outcome.status


def _compile(laboratory: Laboratory) -> None:
    """Here a module compiles in a hundredth of the time, and the guest could not keep the result."""
    subprocess.run(
        [str(laboratory.python), "-m", "compileall", "-q", "-j", "0", "novacron", "tests/lab"],
        cwd=laboratory.checkout,
        check=True,
        timeout=300,
    )


def _environment(laboratory: Laboratory, folder: Path) -> dict[str, str]:
    """Without what would let a developer's settings change the guest."""
    path = os.environ.get("PATH", os.defpath)
    return {
        # `vng` looks for its sibling `virtme-run` in the path, and for modprobe.
        "PATH": f"{laboratory.python.parent}:{path}:/usr/sbin:/sbin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

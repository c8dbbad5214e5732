"""Kills a rotation of the master key before each of its writes, and looks what is left. A process of
its own, without threads, so that it can fork; run by test_master_rotation.py with a scenario, a
directory and the second master key's reference."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from novacron.security.keyring import Keyring
from novacron.security.module_options import ModuleOptions
from tests.security.keyring_version_1 import write_version_1
from tests.security.stand_ins import prepared

WRITES = ("open", "write", "fsync", "rename", "unlink")
SEALED = b"what was sealed before"


def options() -> ModuleOptions:
    return ModuleOptions(os.environ.get("MODULE"), os.environ.get("PIN"), 30.0)


def ring(root: Path, reference: str) -> Keyring:
    return Keyring(prepared(root), reference, options=options())


def opened(root: Path, reference: str, *, create: bool = True) -> Keyring:
    found = ring(root, reference)
    found.open(create=create)
    return found


class Killer:
    """Kills this process before its write number *step*."""

    def __init__(self, step: int, writes: Sequence[str]) -> None:
        self.left = step
        for name in writes:
            setattr(os, name, self._watch(getattr(os, name), name))

    def _watch(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if name != "open" or arguments[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.left -= 1
            return real(*arguments, **named)

        return watched


def in_a_child(step: int, work: Callable[[], None], writes: Sequence[str] = WRITES) -> bool:
    """Whether *work* came to its end before it was killed, before one of these *writes*."""
    pid = os.fork()
    if pid == 0:
        try:
            Killer(step, writes)
            work()
            os._exit(0)
        except BaseException as exc:
            sys.stderr.write(f"step {step}: {exc!r}\n")
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"step {step} failed"
    return True


def check(root: Path, references: list[str], sealed: bytes, running: Keyring) -> None:
    """A node opens it with each of *references*, and the one that runs goes on, also where somebody
    else has gone over to a master key that it does not have."""
    assert running.decrypt(sealed, b"c") == SEALED
    assert running.decrypt(running.encrypt(b"meanwhile", b"c"), b"c") == b"meanwhile"
    for reference in references:
        # First as the command line looks, then as a node boots, which finishes what was begun.
        for create in (False, True):
            assert opened(root, reference, create=create).decrypt(sealed, b"c") == SEALED
    assert not (root / "secrets/master.key.next").exists()


def in_place(root: Path, other: str) -> tuple[Callable[[], None], list[str], list[str]]:
    """The node makes itself a new key file."""
    return lambda: opened(root, "file:").rotate_master(), ["file:"], ["file:"]


def to_reference(root: Path, other: str) -> tuple[Callable[[], None], list[str], list[str]]:
    """The operator prepares the keyring for another key."""
    return lambda: opened(root, "file:").rotate_master(other), ["file:"], ["file:", other]


def taken_over(root: Path, other: str) -> tuple[Callable[[], None], list[str], list[str]]:
    """The node goes over to the key it was prepared for."""
    opened(root, "file:").rotate_master(other)

    def work() -> None:
        node = opened(root, "file:")
        node.take_over(other, options())

    return work, [other], [other]


def upgraded(root: Path, other: str) -> tuple[Callable[[], None], list[str], list[str]]:
    """A node of this release boots on the keyring of the one before."""

    write_version_1(root)

    def work() -> None:
        opened(root, "file:")

    return work, ["file:"], ["file:"]


SCENARIOS = {work.__name__: work for work in (in_place, to_reference, taken_over, upgraded)}


def main(scenario: str, base: Path, other: str) -> int:
    first = base / "first"
    node = opened(first, "file:")
    sealed = node.encrypt(SEALED, b"c")
    node.rotate()
    steps = 0
    while True:
        root = base / f"step-{steps}"
        shutil.copytree(first, root)
        running = ring(root, "file:")
        running.open(create=False)
        # As a node that has been running for a while: messages of its active key are reserved.
        running.encrypt(b"", b"")
        work, cut, whole = SCENARIOS[scenario](root, other)
        ended = in_a_child(steps, work)
        check(root, whole if ended else cut, sealed, running)
        if ended:
            break
        # What was cut can be done again; of going over, the next boot does what is left.
        if scenario == "taken_over":
            opened(root, other).settle()
            assert not opened(root, other).unsettled()
        else:
            work()
        check(root, whole, sealed, running)
        steps += 1
    print(json.dumps({"steps": steps}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))

"""A first boot that is cut short anywhere is finished by the next one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from novacron import durable
from novacron.security import (
    audit_head,
    audit_recovery,
    authority,
    clock,
    master_source,
    material,
    own_material,
    stored_keyring,
    tokens,
)
from novacron.security.errors import StorageFailedError
from tests.security.stand_ins import make_security, tree

DEADLINE = 30.0
WRITERS = (
    audit_head,
    audit_recovery,
    authority,
    clock,
    master_source,
    own_material,
    stored_keyring,
    tokens,
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that cleans up after an error may catch it."""


class Cut:
    """Lets so many durable steps pass and then ends everything, before or after the next one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int, *, after: bool) -> None:
        self.left = steps
        self.after = after
        self.dead = False
        for module in WRITERS:
            monkeypatch.setattr(module, "write_durably", self._wrap(durable.write_durably))
        monkeypatch.setattr(material, "write_atomically", self._wrap(durable.write_atomically))
        monkeypatch.setattr(os, "pwrite", self._wrap(os.pwrite))
        monkeypatch.setattr(os, "fdatasync", self._wrap(os.fdatasync))

    def _wrap(self, step: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            if self.dead:
                raise Killed
            self.left -= 1
            if self.left >= 0:
                return step(*args, **kwargs)
            self.dead = True
            if self.after:
                step(*args, **kwargs)
            raise Killed

        return wrapped


def open_all(root: Path) -> list[str]:
    """What a boot does to the disk, without the event loop around it."""
    security, node = make_security(root)
    _, warnings = security._open("0b0f6a5e-3c56-4d1c-9f0e-2f6a3f3d7c11")
    security.audit.append_blocking("node.start", "node", "node")
    security.clock.advance()
    security.audit.close_blocking()
    return [*warnings, *node.said]


def complete(root: Path) -> None:
    """Everything a booted node has is there and fits together."""
    security, _ = make_security(root)
    security._open("0b0f6a5e-3c56-4d1c-9f0e-2f6a3f3d7c11")
    secret = (root / "secrets" / "admin.token").read_text().strip()
    assert security.tokens.authenticate(secret) is not None
    assert security.audit.verify().ok
    security.certificates.server_context()
    security.keyring.decrypt(security.keyring.encrypt(b"x", b"c"), b"c")
    security.audit.close_blocking()


def steps_of_a_first_boot(root: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        cut = Cut(patch, 10_000, after=False)
        open_all(root)
    return 10_000 - cut.left


def test_a_boot_goes_on_from_wherever_the_first_one_was_cut(tmp_path: Path) -> None:
    steps = steps_of_a_first_boot(tmp_path / "undisturbed")
    assert steps >= 12
    expected = tree(tmp_path / "undisturbed").keys()
    for after in (False, True):
        for step in range(steps):
            root = tmp_path / f"{step}-{after}"
            with pytest.MonkeyPatch.context() as patch:
                Cut(patch, step, after=after)
                with pytest.raises(Killed):
                    open_all(root)
            assert open_all(root) == [], (step, after)
            assert tree(root).keys() == expected, (step, after)
            complete(root)


def test_each_file_may_be_the_last_one_that_reached_the_disk(tmp_path: Path) -> None:
    """The order in which files appear, replayed as the state a crash leaves."""
    source = tmp_path / "source"
    open_all(source)
    order = [
        "secrets/master.key",
        "secrets/keyring.json",
        "pki/ca.key",
        "pki/ca.pem",
        "pki/node.pem",
        "pki/verified.json",
        "secrets/admin.token",
        "secrets/tokens.json",
    ]
    for count in range(len(order) + 1):
        root = tmp_path / str(count)
        for name in order[:count]:
            (root / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy2(source / name, root / name)
        assert open_all(root) == [], order[:count]
        complete(root)
        for name in order[:count]:
            if name not in ("secrets/keyring.json",):
                assert (root / name).read_bytes() == (source / name).read_bytes(), name


BOOT = """
import sys, trio
from pathlib import Path
from tests.security.stand_ins import make_security

async def main():
    security, _ = make_security(Path(sys.argv[1]))
    print("go", flush=True)
    async with trio.open_nursery() as nursery:
        await security.initialize(nursery)
        await trio.sleep(10)

trio.run(main)
"""


@pytest.mark.parametrize("wait", [0.0, 0.02, 0.04, 0.06])
def test_a_first_boot_killed_by_the_kernel_is_finished_by_the_next(
    tmp_path: Path, repository: Path, wait: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(DEADLINE)
        if process.stdout is not None:
            process.stdout.close()
    # A torn audit line is repaired with a warning; anything else would be a fault.
    assert all("incomplete, as a crash leaves it" in warning for warning in open_all(tmp_path))
    complete(tmp_path)


def test_a_node_whose_keys_are_lost_for_good_can_start_over(tmp_path: Path) -> None:
    """The last resort of the runbook lost-master-key."""
    open_all(tmp_path)
    (tmp_path / "lost").mkdir()
    for name in ("secrets", "pki"):
        (tmp_path / name).rename(tmp_path / "lost" / name)
    (warning,) = open_all(tmp_path)
    assert "head" in warning
    assert "was missing and was made anew" in warning
    complete(tmp_path)


def test_a_first_boot_imports_ahead_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    started: list[str] = []
    plain = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        started.append(thread.name)
        plain(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        open_all(tmp_path)
        assert started == ["novacron import x509"]
        open_all(tmp_path)
        assert started == ["novacron import x509"], "later boots import nothing"
    assert set(threading.enumerate()) == before


def test_a_first_boot_without_another_thread_to_be_had_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert open_all(tmp_path) == []
    complete(tmp_path)


async def test_a_disk_that_is_full_at_the_first_boot_says_so_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(authority, "write_durably", full)
        security, _ = make_security(tmp_path)
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                with pytest.raises(StorageFailedError) as caught:
                    await security.initialize(nursery)
                await security.shutdown()
    assert caught.value.why == "the disk is full"
    assert "ca.key" in caught.value.what
    assert open_all(tmp_path) == []
    complete(tmp_path)

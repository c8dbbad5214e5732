"""The five durable checkpoints of a boot, and what the next boot reads from the last one.

``boot/checkpoint.json`` holds the newest checkpoint: which boot, which of the five, the validated
configuration's digest and a copy of it, what was started, and the undo steps owed. A clean stop
writes a sixth name, ``stopped``, over it. Whatever else the next boot finds there was a crash.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from novacron.boot.journal import UndoJournal, UndoStep
from novacron.boot.sealed import DamagedFileError, read_sealed, write_sealed
from novacron.component import JsonObject, Phase
from novacron.data_directory import DataDirectory
from novacron.durable import remove_leftovers
from novacron.errors import BootError, TransientError

INIT_START = "init_start"
STOPPED = "stopped"
ROLLED_BACK = "rolled_back"
AFTER_PHASE = {
    Phase.PRE_INIT: "pre_init_complete",
    Phase.CORE: "core_init_complete",
    Phase.SERVICES: "service_init_complete",
    Phase.POST_INIT: "init_complete",
}
CHECKPOINTS = (INIT_START, *AFTER_PHASE.values())

_MEANING = {
    "checkpoint.json": "How the last run ended is not known; if it crashed, look whether it left "
    "something behind",
    "undo.journal": "What could be read of it is undone; look whether the last run left something "
    "behind",
    "last-known-good.json": "There is nothing for --last-known-good until this boot is READY",
}
"""What the loss of each file means to an operator."""
ENDINGS = (STOPPED, ROLLED_BACK)


class StateWriteError(BootError, TransientError):
    """The boot's own state cannot be written; retryable because space may be freed."""

    code = "boot.state_write"


class BootState:
    """Everything the boot keeps in ``DataDirectory.boot``, apart from the reports.

    The data directory must be locked by this process. All methods block on the disk.
    ``quarantined`` names the files that could not be believed and where they lie now.

    Raises (from the constructor) StateWriteError: a file cannot be read or set aside.
    """

    def __init__(self, data: DataDirectory, boot_id: str) -> None:
        self._data = data
        self._boot_id = boot_id
        self._checkpoint_path = data.boot / "checkpoint.json"
        self._journal_path = data.boot / "undo.journal"
        self._known_good_path = data.boot / "last-known-good.json"
        self._configuration: JsonObject = {}
        self._digest = ""
        self.turn = trio.Semaphore(1, max_value=1)
        """Held by the task that writes a checkpoint or changes the journal: a step recorded while a
        checkpoint is being written would belong to neither side of it."""
        self.quarantined: list[str] = []
        self.previous = self._read(self._checkpoint_path, _check_checkpoint)
        self._known_good = self._read(self._known_good_path, _check_known_good)
        self.journal = self._open_journal()
        for directory in (data.root, data.boot, data.boot / "reports", data.run):
            remove_leftovers(directory)

    @property
    def stopped_in_order(self) -> bool:
        """Whether the newest checkpoint says that the last process ended by itself."""
        return self.previous is not None and self.previous["checkpoint"] in ENDINGS

    def describe_configuration(self, digest: str, configuration: JsonObject) -> None:
        """What every following checkpoint says the node was configured as."""
        self._digest = digest
        self._configuration = configuration

    def write_checkpoint(self, name: str, started: Sequence[str]) -> None:
        """Make *name* the newest checkpoint and the steps before it permanent, but for those until
        the stop. At an ending, what is still owed could not be undone, and stays owed.

        Raises StateWriteError; the previous checkpoint stays valid then.
        """
        owed = [step for step in self.journal.owed if step.until_stop or name in ENDINGS]
        try:
            write_sealed(
                self._checkpoint_path,
                {
                    "boot_id": self._boot_id,
                    "checkpoint": name,
                    "started": list(started),
                    "configuration_digest": self._digest,
                    "configuration": self._configuration,
                    "owed": [step.as_json() for step in owed],
                },
            )
            self.journal.commit(_mark(self._boot_id, name), owed)
            if name == CHECKPOINTS[-1] or name in ENDINGS:
                self.journal.compact()
        except OSError as exc:
            raise StateWriteError(
                f"checkpoint {name} cannot be written to {self._checkpoint_path}",
                why=exc.strerror or str(exc),
                remedy="free some space in the data directory, or make it writable",
                key="system.data_dir",
            ) from exc

    def remember_known_good(self) -> None:
        """Keep this configuration for ``--last-known-good``; writes only when it changed.

        Raises StateWriteError.
        """
        if self._known_good is not None and self._known_good["digest"] == self._digest:
            return
        body = {
            "boot_id": self._boot_id,
            "digest": self._digest,
            "configuration": self._configuration,
        }
        try:
            write_sealed(self._known_good_path, body)
        except OSError as exc:
            raise StateWriteError(
                f"the last known good configuration cannot be written to {self._known_good_path}",
                why=exc.strerror or str(exc),
                remedy="free some space in the data directory, or make it writable",
                key="system.data_dir",
            ) from exc
        self._known_good = body

    def known_good(self) -> JsonObject | None:
        """``{"boot_id", "digest", "configuration"}`` of the newest boot that became READY."""
        return self._known_good

    def differs_from_known_good(self) -> bool:
        """Whether another configuration than this one became READY before."""
        return self._known_good is not None and self._known_good["digest"] != self._digest

    def close(self) -> None:
        self.journal.close()

    def _read(self, path: Path, check: Callable[[JsonObject], object]) -> JsonObject | None:
        try:
            try:
                body = read_sealed(path)
                if body is not None:
                    check(body)
                return body
            except DamagedFileError as exc:
                self._note_damage(path, str(exc), self._data.quarantine(path))
                return None
        except OSError as exc:
            raise _unusable(path, exc) from exc

    def _open_journal(self) -> UndoJournal:
        previous = self.previous
        mark = None if previous is None else _mark(previous["boot_id"], previous["checkpoint"])
        owed = [] if previous is None else [UndoStep.from_json(step) for step in previous["owed"]]
        try:
            journal = UndoJournal(self._journal_path, mark, owed)
            if journal.damage is not None:
                # A copy: a crash before the repair must find what is left of it again.
                copy = self._data.quarantine_copy(self._journal_path)
                self._note_damage(self._journal_path, journal.damage, copy)
                journal.repair()
        except OSError as exc:
            raise _unusable(self._journal_path, exc) from exc
        return journal

    def _note_damage(self, path: Path, why: str, target: Path) -> None:
        self.quarantined.append(
            f"{path.name} was damaged ({why}); it lies in {target} now. {_MEANING[path.name]}"
        )


def _mark(boot_id: str, name: str) -> str:
    return f"{boot_id}/{name}"


def _check_checkpoint(body: JsonObject) -> None:
    if not isinstance(body.get("boot_id"), str) or not isinstance(body.get("checkpoint"), str):
        raise DamagedFileError("it names no checkpoint")
    owed = body.get("owed")
    if not isinstance(owed, list):
        raise DamagedFileError("it does not say what is owed")
    for step in owed:
        UndoStep.from_json(step)


def _check_known_good(body: JsonObject) -> None:
    if not isinstance(body.get("digest"), str) or not isinstance(body.get("configuration"), dict):
        raise DamagedFileError("it holds no configuration")


def _unusable(path: Path, exc: OSError) -> StateWriteError:
    # What is in the way may be the quarantine the file was to be moved to.
    place = os.fsdecode(exc.filename) if exc.filename else str(path)
    remedy = "make it readable and writable for this user"
    if exc.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTDIR):
        remedy = f"move {place} away, which is not what the node put there"
    elif exc.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space in the data directory"
    return StateWriteError(
        f"the boot state {path} cannot be used",
        why=exc.strerror or str(exc),
        remedy=remedy,
        key="system.data_dir",
    )

"""The five durable checkpoints of a boot, and what the next boot reads from the last one.

``boot/checkpoint.json`` holds the newest checkpoint: which boot, which of the five, the validated
configuration's digest and a copy of it, what was started, and the undo steps owed. A clean stop
writes a sixth name, ``stopped``, over it. Whatever else the next boot finds there was a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from novacron.boot.journal import UndoJournal
from novacron.boot.sealed import DamagedFileError, read_sealed, write_sealed
from novacron.component import JsonObject, Phase
from novacron.data_directory import DataDirectory
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


class StateWriteError(BootError, TransientError):
    """The boot's own state cannot be written; retryable because space may be freed."""

    code = "boot.state_write"


class BootState:
    """Everything the boot keeps in ``DataDirectory.boot``, apart from the reports.

    The data directory must be locked by this process. All methods block on the disk.
    ``quarantined`` names the files that could not be believed and where they lie now.
    """

    def __init__(self, data: DataDirectory, boot_id: str) -> None:
        self._data = data
        self._boot_id = boot_id
        self._checkpoint_path = data.boot / "checkpoint.json"
        self._journal_path = data.boot / "undo.journal"
        self._known_good_path = data.boot / "last-known-good.json"
        self._configuration: JsonObject = {}
        self._digest = ""
        self.quarantined: list[str] = []
        self.previous = self._read(self._checkpoint_path)
        self.journal = self._open_journal()

    def describe_configuration(self, digest: str, configuration: JsonObject) -> None:
        """What every following checkpoint says the node was configured as."""
        self._digest = digest
        self._configuration = configuration

    def write_checkpoint(self, name: str, started: Sequence[str]) -> None:
        """Make *name* the newest checkpoint and the steps before it permanent.

        Raises StateWriteError; the previous checkpoint stays valid then.
        """
        try:
            write_sealed(
                self._checkpoint_path,
                {
                    "boot_id": self._boot_id,
                    "checkpoint": name,
                    "started": list(started),
                    "configuration_digest": self._digest,
                    "configuration": self._configuration,
                    "owed": [step.as_json() for step in self.journal.owed if step.until_stop],
                },
            )
            self.journal.commit()
            if name in (CHECKPOINTS[-1], STOPPED, ROLLED_BACK):
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
        known = self._read(self._known_good_path)
        if known is not None and known.get("digest") == self._digest:
            return
        try:
            write_sealed(
                self._known_good_path,
                {
                    "boot_id": self._boot_id,
                    "digest": self._digest,
                    "configuration": self._configuration,
                },
            )
        except OSError as exc:
            raise StateWriteError(
                f"the last known good configuration cannot be written to {self._known_good_path}",
                why=exc.strerror or str(exc),
                remedy="free some space in the data directory, or make it writable",
                key="system.data_dir",
            ) from exc

    def known_good(self) -> JsonObject | None:
        """``{"boot_id", "digest", "configuration"}`` of the newest boot that became READY."""
        return self._read(self._known_good_path)

    def differs_from_known_good(self) -> bool:
        """Whether another configuration than this one became READY before."""
        try:
            known = self.known_good()
        except StateWriteError:
            return False
        return known is not None and known.get("digest") != self._digest

    def close(self) -> None:
        self.journal.close()

    def _read(self, path: Path) -> JsonObject | None:
        try:
            return read_sealed(path)
        except DamagedFileError as exc:
            self._quarantine(path, exc)
            return None
        except OSError as exc:
            raise _unreadable(path, exc) from exc

    def _open_journal(self) -> UndoJournal:
        try:
            return UndoJournal(self._journal_path)
        except DamagedFileError as exc:
            self._quarantine(self._journal_path, exc)
            journal = UndoJournal(self._journal_path)
            # The checkpoint still knows the long-lived steps; the others of a damaged journal are
            # lost, and the quarantined file is what an operator has to look at.
            for step in (self.previous or {}).get("owed", []):
                journal.owe(step["component"], step["kind"], step["arguments"], until_stop=True)
            return journal
        except OSError as exc:
            raise _unreadable(self._journal_path, exc) from exc

    def _quarantine(self, path: Path, why: DamagedFileError) -> None:
        target = self._data.quarantine(path)
        self.quarantined.append(f"{path.name} was damaged ({why}); it lies in {target} now")


def _unreadable(path: Path, exc: OSError) -> StateWriteError:
    return StateWriteError(
        f"the boot state {path} cannot be used",
        why=exc.strerror or str(exc),
        remedy="make it readable and writable for this user",
        key="system.data_dir",
    )

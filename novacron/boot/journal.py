"""The undo journal: what must be undone if this process dies, on disk before it is done.

One line an entry, each with its own checksum; appended and synced. Three kinds of entry:

* ``owe``: an effect is about to be made.
* ``clear``: one step was undone, or its component took care of it.
* ``commit``: a checkpoint was reached; every step not marked ``until_stop`` is permanent now.

A torn last line is what a crash in mid-append leaves, and means an effect that was never made: it
is dropped. Damage anywhere else makes the whole file unbelievable.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novacron.boot.sealed import DamagedFileError
from novacron.durable import fsync_directory, write_durably


@dataclass(frozen=True, slots=True)
class UndoStep:
    id: str
    component: str
    kind: str
    arguments: Mapping[str, Any]
    until_stop: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "component": self.component,
            "kind": self.kind,
            "arguments": dict(self.arguments),
            "until_stop": self.until_stop,
        }


class UndoJournal:
    """The steps owed, in the order they were recorded. All methods block on the disk.

    Raises (from the constructor):
      DamagedFileError: the file cannot be believed; move it aside and construct again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: dict[str, UndoStep] = {}
        self._lines = 0
        self._descriptor: int | None = None
        self._sequence = 0
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        whole, _, torn = data.rpartition(b"\n")
        for line in whole.splitlines():
            self._apply(_decode(line))
        if torn:
            # Appending after half a line would make damage out of an accident.
            self._rewrite()

    @property
    def owed(self) -> list[UndoStep]:
        return list(self._steps.values())

    def owe(
        self, component: str, kind: str, arguments: Mapping[str, Any], *, until_stop: bool
    ) -> UndoStep:
        """Returns once the step is on disk; only then may the effect be made."""
        self._sequence += 1
        step = UndoStep(
            f"{os.getpid()}-{self._sequence}-{os.urandom(3).hex()}",
            component,
            kind,
            dict(arguments),
            until_stop,
        )
        self._append({"op": "owe", "step": step.as_json()})
        self._steps[step.id] = step
        return step

    def clear(self, step_id: str) -> None:
        """Forget one step; a step that is not owed is none of our business."""
        if self._steps.pop(step_id, None) is not None:
            self._append({"op": "clear", "id": step_id})

    def commit(self) -> None:
        """A checkpoint was reached. Costs nothing when nothing is owed that it makes permanent."""
        if any(not step.until_stop for step in self._steps.values()):
            self._steps = {i: step for i, step in self._steps.items() if step.until_stop}
            self._append({"op": "commit"})

    def compact(self) -> None:
        """Shrink the file to what is owed; when nothing is, it holds no line."""
        if self._lines > len(self._steps):
            self._rewrite()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _apply(self, entry: Any) -> None:
        self._lines += 1
        try:
            match entry["op"]:
                case "owe":
                    step = UndoStep(**entry["step"])
                    self._steps[step.id] = step
                case "clear":
                    self._steps.pop(entry["id"], None)
                case "commit":
                    self._steps = {i: s for i, s in self._steps.items() if s.until_stop}
                case _:
                    raise DamagedFileError("it holds an entry of an unknown kind")
        except (KeyError, TypeError) as exc:
            raise DamagedFileError("it holds an entry that lacks something") from exc

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            fresh = not self._path.exists()
            self._descriptor = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            if fresh:
                fsync_directory(self._path.parent)
        line = _encode(entry)
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(28, "No space left on device", str(self._path))
            os.fdatasync(self._descriptor)
        except OSError:
            # Half a line in mid-file would condemn the whole journal at the next boot.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise
        self._lines += 1

    def _rewrite(self) -> None:
        self.close()
        entries = [_encode({"op": "owe", "step": step.as_json()}) for step in self.owed]
        write_durably(self._path, b"".join(entries))
        self._lines = len(entries)


def _encode(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> Any:
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            raise DamagedFileError("a checksum does not match")
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, DamagedFileError):
            raise
        raise DamagedFileError("it holds a line that is no entry") from exc

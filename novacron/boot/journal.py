"""The undo journal: what must be undone if this process dies, on disk before it is done.

The newest checkpoint says what was owed when it was written; the journal says what changed since.
One line an entry, each with its own checksum, appended and synced:

* ``owe``: an effect is about to be made. ``after`` is the mark of the checkpoint it comes after; a
  later checkpoint makes it permanent or lists it itself, so the checkpoint's rename is the one
  moment that decides, and nothing need be written here for it.
* ``clear``: one step was undone, or its component took care of it.

The last line is a checksum over all the others, overwritten by each append: a file that lost its
end is told from one that never had it. What a damaged file still says is believed line by line,
because undoing once too often is harmless and forgetting an effect is not.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from novacron.boot.sealed import DamagedFileError
from novacron.durable import write_durably
from novacron.record import Record


class UndoStep(Record):
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

    @classmethod
    def from_json(cls, data: Any) -> UndoStep:
        """Raises DamagedFileError unless *data* has the shape of :meth:`as_json`."""
        try:
            step = cls(**data)
        except TypeError as exc:
            raise DamagedFileError("it holds a step that lacks something") from exc
        texts = (step.id, step.component, step.kind)
        if not all(isinstance(text, str) for text in texts) or not isinstance(step.arguments, dict):
            raise DamagedFileError("it holds a step that is none")
        return step


class UndoJournal:
    """The steps owed, in the order they were recorded. All methods block on the disk and may be
    called from any thread.

    ``damage`` says what was wrong with the file, None for a good one. A damaged file stays as it is
    until :meth:`repair`, which must come before anything is recorded.
    """

    def __init__(
        self, path: Path, checkpoint: str | None = None, owed: Sequence[UndoStep] = ()
    ) -> None:
        """*checkpoint*: the newest checkpoint's mark, and *owed* what it lists. Without one (None)
        every step in the journal counts.

        Raises OSError: the file cannot be read.
        """
        self._path = path
        self._mark = checkpoint or ""
        self._turn = threading.Lock()
        self._descriptor: int | None = None
        self._sequence = 0
        self._steps = {step.id: step for step in owed}
        self._lines = 0
        self._checksum = 0
        self._size = 0
        self.damage: str | None = None
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self._exists = False
            return
        self._exists = True
        *lines, end = data.splitlines(keepends=True) or [b""]
        for line in lines:
            self._read(line, checkpoint)
        self._checksum = zlib.crc32(data[: len(data) - len(end)])
        self._size = len(data) - len(end)
        if end != _end(self._checksum):
            self.damage = self.damage or "its end is missing"
            if lines or end:
                self._read(end, checkpoint, last=True)

    @property
    def owed(self) -> list[UndoStep]:
        with self._turn:
            return list(self._steps.values())

    def owe(
        self, component: str, kind: str, arguments: Mapping[str, Any], *, until_stop: bool
    ) -> UndoStep:
        """Returns once the step is on disk; only then may the effect be made."""
        with self._turn:
            self._sequence += 1
            step = UndoStep(
                f"{os.getpid()}-{self._sequence}-{os.urandom(3).hex()}",
                component,
                kind,
                dict(arguments),
                until_stop,
            )
            self._append({"op": "owe", "after": self._mark, "step": step.as_json()})
            self._steps[step.id] = step
        return step

    def clear(self, step_id: str) -> None:
        """Forget one step; a step that is not owed is none of our business."""
        with self._turn:
            if step_id in self._steps:
                self._append({"op": "clear", "id": step_id})
                del self._steps[step_id]

    def commit(self, checkpoint: str, owed: Sequence[UndoStep]) -> None:
        """The checkpoint with the mark *checkpoint* is on disk and lists *owed*. Writes nothing."""
        with self._turn:
            self._mark = checkpoint
            self._steps = {step.id: step for step in owed}

    def compact(self) -> None:
        """Shrink the file to what is owed; when nothing is, it holds no entry."""
        with self._turn:
            if self._lines > len(self._steps):
                self._rewrite()

    def repair(self) -> None:
        """Write a whole file in place of a damaged one."""
        with self._turn:
            self._rewrite()
            self.damage = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self, line: bytes, checkpoint: str | None, *, last: bool = False) -> None:
        try:
            self._apply(_decode(line), checkpoint)
        except DamagedFileError as exc:
            # A damaged end is most often half an append; that it is missing says enough.
            if not last:
                self.damage = self.damage or str(exc)

    def _apply(self, entry: Any, checkpoint: str | None) -> None:
        self._lines += 1
        try:
            match entry["op"]:
                case "owe":
                    step = UndoStep.from_json(entry["step"])
                    if checkpoint is None or entry["after"] == checkpoint:
                        self._steps[step.id] = step
                case "clear" if isinstance(entry["id"], str):
                    self._steps.pop(entry["id"], None)
                case _:
                    raise DamagedFileError("it holds an entry of an unknown kind")
        except (KeyError, TypeError) as exc:
            raise DamagedFileError("it holds an entry that lacks something") from exc

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = _encode(entry)
        checksum = zlib.crc32(line, self._checksum)
        if not self._exists:
            # A file that appears whole: an empty one would look as if its end had been lost.
            write_durably(self._path, line + _end(checksum))
            self._exists = True
        else:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            data = line + _end(checksum)
            try:
                if os.pwrite(self._descriptor, data, self._size) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                os.fdatasync(self._descriptor)
            except OSError:
                # The next append goes here again, and nobody may find half of this one.
                with contextlib.suppress(OSError):
                    end = _end(self._checksum)
                    os.pwrite(self._descriptor, end, self._size)
                    os.ftruncate(self._descriptor, self._size + len(end))
                raise
        self._checksum = checksum
        self._size += len(line)
        self._lines += 1

    def _rewrite(self) -> None:
        self.close()
        lines = [
            _encode({"op": "owe", "after": self._mark, "step": step.as_json()})
            for step in self._steps.values()
        ]
        data = b"".join(lines)
        checksum = zlib.crc32(data)
        write_durably(self._path, data + _end(checksum))
        self._exists = True
        self._lines, self._checksum, self._size = len(lines), checksum, len(data)


def _encode(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _end(checksum: int) -> bytes:
    return b"end %08x\n" % checksum


def _decode(line: bytes) -> Any:
    text = line[9:-1]
    if line[-1:] != b"\n" or line[:9] != b"%08x " % zlib.crc32(text):
        raise DamagedFileError("a checksum does not match")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DamagedFileError("it holds a line that is no entry") from exc

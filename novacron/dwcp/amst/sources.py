"""What is to be sent: PATHs, walked into entries, and opened one after the other.

It goes by the rules of ``cp -r``:

* An entry's path begins with the last part of its PATH: ``/vm/a`` gives ``a``, or ``a``, ``a/b``, …
  for a directory. A slash at the end of a PATH changes nothing (``rsync`` thinks otherwise).
* A PATH without a name of its own (``.``, ``..``, ``/``, ``dir/.``) gives what is in it, without a
  directory around. It can only be sent alone.
* A symbolic link that is a PATH is followed. One inside a directory is skipped, like sockets, pipes
  and devices, and so is what the other side would refuse for its name; ``skipped`` says which.
* Mode bits and the time of the last change go along; owners, extended attributes, access lists and
  hard links do not.

Everything here blocks on the disk: call it in a worker thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, Self

from novacron.dwcp.amst.errors import (
    SourceChangedError,
    SourceInvalidError,
    SourceReadError,
)
from novacron.dwcp.amst.paths import (
    MAX_PATH_BYTES,
    Confinement,
    Place,
    fault_of_name,
    fault_of_path,
)
from novacron.record import Record

MAX_SKIPPED: Final = 1000
"""Of so many the paths are kept; of more only the number."""
MAX_DEPTH: Final = 100
"""Directories inside each other; each costs a descriptor while it is walked."""
_BLOCK_BYTES: Final = 512
"""Unit of st_blocks, whatever the file system's own is."""
_IDENTITY = Struct("!QqqQQ")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that was put there in the meantime must not wait for a writer.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Entry(Record):
    """A file or directory of a transfer."""

    position: int
    """From 0, in the order of the walk."""
    path: str
    """Relative, below the destination."""
    kind: str
    """``file`` or ``dir``."""
    size: int
    """Bytes; 0 for a directory."""
    mode: int
    """Permission bits, 0 to 0o777."""
    mtime_ns: int
    sparse: bool
    """It takes less room than its size: worth looking for holes."""
    identity: bytes
    """32 bytes, see :func:`identity_of`."""
    root: int = 0
    """Which of the PATHs it belongs to."""


class Skipped(Record):
    path: str
    why: str


class SourceFile:
    """A file that is opened for sending. Closed by whoever opened it."""

    def __init__(self, descriptor: int, entry: Entry, path: str) -> None:
        self.descriptor = descriptor
        self.entry = entry
        self.path = path

    def check_unchanged(self) -> None:
        """To be called before the transfer of the file is called done: what was read in the
        meantime may be of two versions.

        A write that changes neither the time nor the size is not noticed. Linux 6.13 and later
        give every write that somebody could tell from the one before another time; older kernels
        need some 4 ms between the two.

        Raises:
          SourceChangedError: it is not what it was when it was listed.
        """
        if identity_of(os.fstat(self.descriptor)) != self.entry.identity:
            raise _changed(self.path)

    def close(self) -> None:
        """Harmless when repeated."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Root(Record):
    """A PATH: the directory above it, opened (None: the working directory), and how it is called
    there, here and on the other side."""

    place: Place | None
    opened: str
    shown: str
    name: str
    """First part of its entries' paths; empty: they have none."""


class Sources:
    """The PATHs of a transfer. Keeps descriptors of directories open until :meth:`close`."""

    def __init__(
        self, paths: Sequence[str], *, recursive: bool, confinement: Confinement | None = None
    ) -> None:
        """
        Args:
          recursive: Directories may be among them.
          confinement: Only what lies below its directories is sent, and no PATH may be, or lead
            through, a symbolic link: for transfers that another node asked for.

        Raises:
          SourceInvalidError: a PATH cannot be sent, or two of them would arrive under one name.
          SourceReadError: it is not there or may not be read.
          PathDeniedError: it lies outside of *confinement*.
        """
        self.skipped: list[Skipped] = []
        self.skipped_total = 0
        self._confinement = confinement
        self._recursive = recursive
        self._roots: list[_Root] = []
        try:
            for path in paths:
                self._roots.append(self._open_root(path))
                self._check_root(self._roots[-1])
            self._check_names()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Iterator[Entry]:
        """Walk: a directory before what is in it, names in the order of their bytes, so that the
        same files give the same entries each time. Holds the names of the directories on the way
        to where it is, and no more.

        Raises:
          SourceReadError: a PATH went away. What goes away or cannot be read inside a directory is
            skipped.
        """
        self.skipped.clear()
        self.skipped_total = 0
        position = 0
        for number, root in enumerate(self._roots):
            for path, found in self._walk(root):
                directory = stat.S_ISDIR(found.st_mode)
                yield Entry(
                    position,
                    path,
                    "dir" if directory else "file",
                    0 if directory else found.st_size,
                    stat.S_IMODE(found.st_mode) & 0o777,
                    found.st_mtime_ns,
                    not directory and found.st_blocks * _BLOCK_BYTES < found.st_size,
                    identity_of(found),
                    number,
                )
                position += 1

    def open(self, entry: Entry) -> SourceFile:
        """Open a file of the walk, following no symbolic link that was put in its way since.

        Raises:
          SourceChangedError: it is gone, or not what it was.
          SourceReadError: it cannot be opened.
        """
        root = self._roots[entry.root]
        below = entry.path.split("/")[1 if root.name else 0 :]
        shown = "/".join((root.shown.rstrip("/"), *below))
        try:
            descriptor = self._open_file(root, below)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise _changed(shown) from exc
            raise _unreadable(shown, exc) from exc
        file = SourceFile(descriptor, entry, shown)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _changed(shown)
            file.check_unchanged()
        except BaseException:
            file.close()
            raise
        return file

    def close(self) -> None:
        """Harmless when repeated."""
        for root in self._roots:
            if root.place is not None:
                root.place.close()

    # Roots ---------------------------------------------------------------------------------

    def _open_root(self, path: str) -> _Root:
        named = [part for part in path.split("/") if part]
        name = "" if not named or named[-1] in (".", "..") else named[-1]
        if not path or "\0" in path:
            raise _invalid(path, "it is no path")
        if name and (fault := fault_of_name(name)):
            raise _invalid(path, fault)
        if self._confinement is None:
            return _Root(None, path, path, name)
        try:
            place = self._confinement.open_source(path)
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        return _Root(place, place.name or ".", place.path, name)

    def _check_root(self, root: _Root) -> None:
        found = self._stat_root(root)
        if stat.S_ISDIR(found.st_mode):
            if not self._recursive:
                raise SourceInvalidError(
                    f"cannot send {root.shown!r}",
                    why="it is a directory",
                    remedy="ask for directories with what is in them (--recursive), or name files",
                )
        elif not stat.S_ISREG(found.st_mode):
            raise _invalid(root.shown, f"it is {_kind(found.st_mode)}")

    def _check_names(self) -> None:
        names = [root.name for root in self._roots]
        if "" in names and len(names) > 1:
            raise _invalid(
                self._roots[names.index("")].shown, "it has no name of its own, so it goes alone"
            )
        for root in self._roots:
            if names.count(root.name) > 1:
                raise _invalid(root.shown, f"another path would arrive as {root.name!r} too")

    def _stat_root(self, root: _Root) -> os.stat_result:
        try:
            if root.place is None:
                return os.stat(root.opened)
            return os.stat(root.opened, dir_fd=root.place.descriptor, follow_symlinks=False)
        except OSError as exc:
            raise _unreadable(root.shown, exc) from exc

    def _open_at_root(self, root: _Root, flags: int) -> int:
        if root.place is None:
            return os.open(root.opened, flags)
        return os.open(root.opened, flags | os.O_NOFOLLOW, dir_fd=root.place.descriptor)

    def _open_file(self, root: _Root, below: list[str]) -> int:
        if not below:
            return self._open_at_root(root, _FILE)
        descriptor = self._open_at_root(root, _DIRECTORY)
        for index, part in enumerate(below):
            flags = _FILE if index == len(below) - 1 else _DIRECTORY
            try:
                descriptor, above = (
                    os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor),
                    descriptor,
                )
            except BaseException:
                os.close(descriptor)
                raise
            os.close(above)
        return descriptor

    # The walk ------------------------------------------------------------------------------

    def _walk(self, root: _Root) -> Iterator[tuple[str, os.stat_result]]:
        found = self._stat_root(root)
        if root.name:
            yield root.name, found
        if not stat.S_ISDIR(found.st_mode):
            return
        stack: list[tuple[int, str, Iterator[str]]] = []
        try:
            try:
                self._enter(stack, self._open_at_root(root, _DIRECTORY), root.name)
            except OSError as exc:
                raise _unreadable(root.shown, exc) from exc
            while stack:
                descriptor, above, names = stack[-1]
                name = next(names, None)
                if name is None:
                    stack.pop()
                    os.close(descriptor)
                    continue
                path = f"{above}/{name}" if above else name
                entry = self._look(descriptor, name, path, len(stack))
                if entry is None:
                    continue
                if not stat.S_ISDIR(entry.st_mode):
                    yield path, entry
                    continue
                try:
                    below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                    self._enter(stack, below, path)
                except OSError as exc:
                    self._skip(path, exc.strerror or str(exc))
                    continue
                yield path, entry
        finally:
            for descriptor, _, _ in stack:
                os.close(descriptor)

    def _enter(
        self, stack: list[tuple[int, str, Iterator[str]]], descriptor: int, path: str
    ) -> None:
        """Takes over *descriptor*."""
        try:
            names = sorted(os.listdir(descriptor), key=os.fsencode)
        except BaseException:
            os.close(descriptor)
            raise
        stack.append((descriptor, path, iter(names)))

    def _look(self, parent: int, name: str, path: str, depth: int) -> os.stat_result | None:
        """None: it was skipped."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as exc:
            self._skip(path, exc.strerror or str(exc))
            return None
        why = fault_of_path(path)
        if not why and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            why = f"it is {_kind(found.st_mode)}"
        if not why and stat.S_ISDIR(found.st_mode) and depth >= MAX_DEPTH:
            why = f"it is more than {MAX_DEPTH} directories deep"
        if why:
            self._skip(path, why)
            return None
        return found

    def _skip(self, path: str, why: str) -> None:
        self.skipped_total += 1
        if len(self.skipped) < MAX_SKIPPED:
            # For people and messages: nothing that a terminal or UTF-8 chokes on.
            shown = path if path.isprintable() else ascii(path)
            self.skipped.append(Skipped(shown[:MAX_PATH_BYTES], why))


def identity_of(found: os.stat_result) -> bytes:
    """SHA-256 of size, mtime, ctime (ns), device and inode: another value, another version. Also
    what leaves the content as it was, such as another name or mode, gives another one."""
    fields = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)
    return hashlib.sha256(b"novacron amst identity" + _IDENTITY.pack(*fields)).digest()


def _kind(mode: int) -> str:
    for is_kind, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a device"),
    ):
        if is_kind(mode):
            return name
    return "no regular file"


def _invalid(path: str, why: str) -> SourceInvalidError:
    return SourceInvalidError(
        f"cannot send {path!r}", why=why, remedy="name regular files or directories"
    )


def _unreadable(path: str, exc: OSError) -> SourceReadError:
    return SourceReadError(
        f"cannot read {path!r}",
        why=exc.strerror or str(exc),
        remedy="name what is there, and what the node's user may read",
    )


def _changed(path: str) -> SourceChangedError:
    return SourceChangedError(
        f"{path!r} changed while it was being sent",
        why="its size, time, place or kind is not what it was when the transfer began",
        remedy="send a snapshot, or stop what writes to it; or let the transfer begin again "
        "(on_change: restart)",
    )

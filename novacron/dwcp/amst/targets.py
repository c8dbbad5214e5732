"""Files that are being received: written under a temporary name, and named when they are whole.

A :class:`PartFile` is ``.<name>.<transfer>.novacron-part`` beside its destination, mode 0600. It is
as long as the object from the beginning, and empty: what was not written reads as zero and takes no
room, so holes stay holes. What a crash leaves at each point:

===========================  ==================================================================
while it comes in            the part file, and the journal of what in it is durable
before the name is given     the same, all of it durable; finishing again does no harm
overwriting, after rename    the finished file; the part file is gone (:func:`is_finished`)
else, after the link         the finished file under both names; finishing again removes the one
===========================  ==================================================================

At no point is there anything but the old content or the whole new one under the destination's name.

Everything here blocks on the disk: call it in a worker thread. OSErrors come out as
:class:`~novacron.dwcp.amst.errors.TargetWriteError`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.errors import (
    NoSpaceError,
    PathDeniedError,
    TargetExistsError,
    TargetWriteError,
)
from novacron.dwcp.amst.journal import Journal
from novacron.dwcp.amst.paths import MAX_NAME_BYTES, PART_SUFFIX, Place, make_directory

_ID_DIGITS: Final = 8
"""Of the transfer's id in a part file's name."""
_ZEROS: Final = bytes(1 << 20)
# What file systems without hard links answer.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMEDIES: Final = {
    errno.ENOSPC: "free space on its file system",
    errno.EDQUOT: "free space, or raise the quota of the user the node runs as",
    errno.EACCES: "let the user the node runs as write there",
    errno.EROFS: "choose a file system that can be written",
    errno.EFBIG: "choose a file system that takes files of this size, or raise the limit on file "
    "sizes of the node's process",
}


def part_name(name: str, transfer: bytes) -> str:
    """The temporary name of *name* in a transfer with this id; never longer than a name may be."""
    end = f".{transfer.hex()[:_ID_DIGITS]}{PART_SUFFIX}"
    room = MAX_NAME_BYTES - 1 - len(end)
    encoded = name.encode()
    if len(encoded) > room:
        # Two long names of one transfer may begin alike.
        mark = "~" + hashlib.sha256(encoded).hexdigest()[:_ID_DIGITS]
        name = encoded[: room - len(mark)].decode(errors="ignore") + mark
    return f".{name}{end}"


class PartFile:
    """Made by :func:`create_part` and :func:`open_part`. Closed by whoever called them, when
    nothing writes to its descriptor any more; closing leaves the file where it is."""

    def __init__(self, directory: int, name: str, part: str, path: str, size: int) -> None:
        self.size = size
        self.path = path
        """Of the destination; for messages."""
        self.descriptor = -1
        """For :attr:`novacron.dwcp.amst.transport.Target.fd`."""
        self._directory = directory
        self._name = name
        self._part = part
        self._failed = False

    def checkpoint(
        self, journal: Journal, bits: bytes, leaves: Callable[[int, int], array[int]]
    ) -> int:
        """Make what is in *bits* durable, then say so in *journal*; returns how many chunks that
        were not on record before.

        Args:
          bits: What was written when the caller looked, before this call.
          leaves: As for :meth:`novacron.dwcp.amst.journal.Journal.append`.
        """
        self._sync(os.fdatasync)
        with _writing(str(journal.path)):
            return journal.append(bits, leaves)

    def clear(self, held: bytes, chunk_bytes: int) -> None:
        """Make everything but the chunks in *held* read as zero again. Needed before a part file
        is received into once more: what came just before the end may lie there, and blocks of
        zeros are not written over it."""
        chunks = -(-self.size // chunk_bytes)
        with _writing(self.path):
            for first, count in runs.missing_runs(held, 0, chunks):
                end = min(self.size, (first + count) * chunk_bytes)
                for begin, size in _data(self.descriptor, first * chunk_bytes, end):
                    _write_zeros(self.descriptor, begin, size)

    def clear_chunks(self, chunks: Iterable[int], chunk_bytes: int) -> None:
        """Make these read as zero again."""
        with _writing(self.path):
            for index in chunks:
                begin = index * chunk_bytes
                for start, size in _data(
                    self.descriptor, begin, min(self.size, begin + chunk_bytes)
                ):
                    _write_zeros(self.descriptor, start, size)

    def write(self, data: memoryview, offset: int) -> None:
        """What was found on this node and need not arrive."""
        with _writing(self.path):
            while data:
                count = os.pwrite(self.descriptor, data, offset)
                data, offset = data[count:], offset + count

    def locate(self) -> str:
        """The destination's path, absolute, without symbolic links; :attr:`path` is as an operator
        may read it. Raises OSError: the directory is gone."""
        return f"{os.readlink(f'/proc/self/fd/{self._directory}').rstrip('/')}/{self._name}"

    def open_old(self) -> int | None:
        """A descriptor of the file that has the destination's name now, for reading; None: there is
        none that could be read. Whoever asked closes it."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._name, flags, dir_fd=self._directory)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def finish(self, mode: int, mtime_ns: int, *, overwrite: bool) -> None:
        """Give the whole file its mode, time and name, durably. Then :meth:`close`.

        Args:
          mode: Permission bits; no more than 0o777 are taken.

        Raises:
          TargetExistsError: something has that name, and is not to be or cannot be overwritten.
            The part file is still there.
          TargetWriteError: the part file is still there, and if its sync failed, not to be trusted.
        """
        with _writing(self.path):
            os.fchmod(self.descriptor, mode & 0o777)
            os.utime(self.descriptor, ns=(mtime_ns, mtime_ns))
        # fsync and not fdatasync: mode and time have to be there as well.
        self._sync(os.fsync)
        with _writing(self.path):
            if overwrite:
                check_name(self._directory, self._name, self.path, overwrite=True)
                self._rename()
            else:
                self._link()
            os.fsync(self._directory)

    def _rename(self) -> None:
        os.rename(self._part, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _link(self) -> None:
        """A rename would replace what somebody put there in the meantime."""
        try:
            os.link(
                self._part,
                self._name,
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
                follow_symlinks=False,
            )
        except FileExistsError:
            found = _look(self._directory, self._name)
            if found is None or not os.path.samestat(found, os.fstat(self.descriptor)):
                check_name(self._directory, self._name, self.path, overwrite=False)
                raise
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            check_name(self._directory, self._name, self.path, overwrite=False)
            self._rename()
            return
        # Two changes, and nothing says that a power cut takes them in this order.
        os.fsync(self._directory)
        os.unlink(self._part, dir_fd=self._directory)

    def abandon(self) -> None:
        """Remove the part file if it is still there, and close."""
        with _writing(self.path), contextlib.suppress(FileNotFoundError):
            os.unlink(self._part, dir_fd=self._directory)
        self.close()

    def close(self) -> None:
        """Harmless when repeated."""
        descriptor, self.descriptor = self.descriptor, -1
        directory, self._directory = self._directory, -1
        for number in (descriptor, directory):
            if number >= 0:
                os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sync(self, sync: Callable[[int], None]) -> None:
        with _writing(self.path):
            if self._failed:
                raise OSError(errno.EIO, "the disk failed to keep what was written before")
            try:
                sync(self.descriptor)
            except OSError:
                # The kernel may have dropped the pages; a second sync would say that all is well.
                self._failed = True
                raise


def create_part(place: Place, transfer: bytes, size: int, *, overwrite: bool) -> PartFile:
    """An empty part file of *size* bytes for the destination *place*, which stays open.

    One that the same transfer left there is replaced.

    Raises:
      TargetExistsError: the destination is there, and is not to be or cannot be overwritten.
      TargetWriteError: it cannot be made.
    """
    with _writing(place.path):
        check_name(place.descriptor, place.name, place.path, overwrite=overwrite)
    return _open(place, transfer, size, os.O_CREAT | os.O_EXCL)


def open_part(place: Place, transfer: bytes, size: int) -> PartFile | None:
    """The part file that an interrupted transfer left; None if it is not there, or not as this
    node made it. *place* stays open. :meth:`PartFile.clear` comes next."""
    part = part_name(place.name, transfer)
    with _writing(place.path):
        found = _look(place.descriptor, part)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        return None
    return _open(place, transfer, size, 0)


def _open(place: Place, transfer: bytes, size: int, flags: int) -> PartFile:
    name = part_name(place.name, transfer)
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    part = PartFile(os.dup(place.descriptor), place.name, name, place.path, size)
    try:
        with _writing(place.path):
            if flags & os.O_CREAT:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=place.descriptor)
            part.descriptor = os.open(name, flags, 0o600, dir_fd=place.descriptor)
            os.ftruncate(part.descriptor, size)
            if flags & os.O_CREAT:
                # Else the first checkpoint would be of a file that has no name after a power cut.
                os.fsync(place.descriptor)
    except BaseException:
        part.close()
        raise
    return part


def remove_part(place: Place, transfer: bytes) -> None:
    """Remove what a transfer that nobody continues left for *place*, if it is there."""
    with _writing(place.path), contextlib.suppress(FileNotFoundError):
        os.unlink(part_name(place.name, transfer), dir_fd=place.descriptor)


def is_finished(place: Place, size: int, mtime_ns: int) -> bool:
    """Whether the destination is what a crash just after :meth:`PartFile.finish` leaves. To be
    asked where the journal has every chunk and the part file is gone."""
    with _writing(place.path):
        found = _look(place.descriptor, place.name)
    return (
        found is not None
        and stat.S_ISREG(found.st_mode)
        and (found.st_size, found.st_mtime_ns) == (size, mtime_ns)
    )


def is_directory(place: Place) -> bool:
    """Whether the destination is a directory already, so that files go into it."""
    if not place.name:
        return True
    with _writing(place.path):
        found = _look(place.descriptor, place.name)
    return found is not None and stat.S_ISDIR(found.st_mode)


def check_space(place: Place, needed_bytes: int) -> None:
    """Raises NoSpaceError: the file system has clearly less than *needed_bytes*.

    A sparse file needs less than its size and nobody knows how much: leave those out.
    """
    with _writing(place.path):
        found = os.fstatvfs(place.descriptor)
    free = found.f_bavail * found.f_frsize
    if free < needed_bytes:
        raise NoSpaceError(
            f"no room for {place.path}",
            why=f"{needed_bytes} bytes are to come, and its file system has {free}",
            remedy="free space there, or choose another destination",
        )


def check_name(directory: int, name: str, path: str, *, overwrite: bool) -> None:
    """That a file may get this name, as far as that can be said beforehand.

    Raises:
      TargetExistsError: a file is there, and is not to be overwritten.
      PathDeniedError: what is there is no regular file.
    """
    found = _look(directory, name)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        raise TargetExistsError(
            f"cannot write {path}",
            why="it is a directory",
            remedy="name a file, or end the path in a slash to put things into the directory",
        )
    if not stat.S_ISREG(found.st_mode):
        raise PathDeniedError(
            f"cannot write {path}",
            why="it is a symbolic link, a device, a pipe or a socket",
            remedy="choose another name, or remove it",
        )
    if not overwrite:
        raise TargetExistsError(
            f"cannot write {path}",
            why="it is there already",
            remedy="choose another name, or allow it to be overwritten (--overwrite)",
        )


# --- Directories ------------------------------------------------------------------------------


def create_directory(place: Place) -> None:
    """Make the directory of a transfer; one that is there already is used.

    Raises:
      TargetExistsError: something else is there.
    """
    with _writing(place.path):
        make_directory(place.descriptor, place.name)
        found = _look(place.descriptor, place.name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise TargetExistsError(
                f"cannot make the directory {place.path}",
                why="something else is there",
                remedy="choose another name, or remove it",
            )


def finish_directory(place: Place, mode: int, mtime_ns: int) -> None:
    """Give a directory its mode and time, after everything in it was finished."""
    with _writing(place.path):
        descriptor = os.open(place.name, _DIRECTORY, dir_fd=place.descriptor)
        try:
            os.fchmod(descriptor, mode & 0o777)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- Underneath -------------------------------------------------------------------------------


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise TargetWriteError(
            f"cannot write {path}",
            why=exc.strerror or str(exc),
            remedy=_REMEDIES.get(exc.errno or 0, ""),
        ) from exc


def _look(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _data(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where in that range there is anything but holes: offset, size."""
    while begin < end:
        try:
            begin = os.lseek(descriptor, begin, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a hole up to the end of the file
                return
            raise
        if begin >= end:
            return
        stop = min(end, os.lseek(descriptor, begin, os.SEEK_HOLE))
        yield begin, stop - begin
        begin = stop


def _write_zeros(descriptor: int, offset: int, size: int) -> None:
    view = memoryview(_ZEROS)
    while size:
        count = os.pwrite(descriptor, view[: min(size, len(view))], offset)
        offset, size = offset + count, size - count

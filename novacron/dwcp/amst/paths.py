"""Where transfers may write, and read for others: below the directories that the configuration names.

A path is taken apart as text first: nothing that goes up, no control characters, nothing that is not
UTF-8. Then each directory on the way is opened from the one before, and a symbolic link is refused
in every place but the configured directory itself, which the operator chose. Nobody can swap one in
between a check and its use, because there is no check apart from the use.

Everything here but :func:`fault_of_name` blocks on the disk: call it in a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from novacron.dwcp.amst.errors import PathDeniedError, TargetWriteError
from novacron.record import Record

KEY: Final = "dwcp.amst.directories"
PART_SUFFIX: Final = ".novacron-part"
"""Of the files that receive; nobody may name one of those as a destination."""
MAX_NAME_BYTES: Final = 255
"""What every Linux file system takes."""
MAX_PATH_BYTES: Final = 4095
"""PATH_MAX without its end: a longer one could be made here, and then be used by nobody."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_UNFIT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's control characters, halves of surrogate pairs, and separators of lines."""


def fault_of_name(name: str) -> str:
    """Why *name* cannot be one component of a path; empty where it can."""
    if not name:
        return "a part of it is empty"
    if name in (".", ".."):
        return f"{name!r} is not followed"
    if "/" in name:
        return "a name holds a slash"
    if any(unicodedata.category(character) in _UNFIT for character in name):
        return f"the name {name!r} has control characters, or is not UTF-8"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"a name is longer than {MAX_NAME_BYTES} bytes"
    if name.startswith(".") and name.endswith(PART_SUFFIX):
        return f"{name!r} is what unfinished files are called"
    return ""


def fault_of_path(path: str) -> str:
    """Why *path* cannot be that of an entry below a destination; empty where it can."""
    if len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    return next(filter(None, map(fault_of_name, path.split("/"))), "")


class Place:
    """An opened directory, and the name of something in it; ``""``: the directory itself.

    ``path`` is for messages. Closes its descriptor with :meth:`close`, or as a context manager.
    """

    def __init__(self, descriptor: int, name: str, path: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.path = path

    def close(self) -> None:
        """Harmless when repeated."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Request(Record):
    """A path that was taken apart."""

    root: str
    parts: tuple[str, ...]
    directory: bool
    """It can only be a directory: it ends in a slash, or is a configured one."""


class Confinement:
    """The directories in which transfers may write."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """*directories*: absolute; at least one. Relative paths are below the first."""
        self.directories = tuple(os.path.normpath(directory) for directory in directories)

    def contains(self, path: str) -> bool:
        """Whether *path* says a place inside, going by its text."""
        try:
            self._take_apart(path)
        except PathDeniedError:
            return False
        return True

    def absolute(self, path: str) -> str:
        """*path*, with the first directory before it where it is relative."""
        return path if path.startswith("/") else f"{self.directories[0].rstrip('/')}/{path}"

    def open_target(self, path: str, *, into: bool) -> Place:
        """Where an operator's *path* leads; what is missing on the way is made, with mode 0755.

        Args:
          into: It is the directory to put things in; also so where it ends in a slash or is one of
            the configured directories. Otherwise the place has the last part as its name, and
            nothing is said of what is there.

        Raises:
          PathDeniedError: it leads outside, through a symbolic link, or is no path.
          TargetWriteError: a directory on the way cannot be opened or made.
        """
        request = self._take_apart(path)
        parts, name = request.parts, ""
        if not into and not request.directory:
            parts, name = parts[:-1], parts[-1]
        where = "/".join((request.root.rstrip("/"), *parts, name)) or "/"
        descriptor = self._open_root(request.root)
        return Place(self._descend(descriptor, parts, path, make=True), name, where)

    def open_source(self, path: str) -> Place:
        """The directory above something that is to be read for another node, and its name there.
        Nothing is made.

        Raises:
          PathDeniedError: as above.
          OSError: a directory on the way cannot be opened.
        """
        request = self._take_apart(path)
        where = "/".join((request.root.rstrip("/"), *request.parts)) or "/"
        parts, name = request.parts[:-1], "".join(request.parts[-1:])
        descriptor = self._open_root(request.root)
        return Place(self._descend(descriptor, parts, path, make=False), name, where)

    def open_below(self, place: Place, path: str) -> Place:
        """Where the entry *path* of a transfer into the directory of *place* leads. What is missing
        on the way is made. *place* stays open.

        Raises:
          PathDeniedError, TargetWriteError: as :meth:`open_target`.
        """
        if fault := fault_of_path(path):
            raise _denied(path, fault)
        *parts, name = path.split("/")
        where = f"{place.path.rstrip('/')}/{path}"
        descriptor = self._descend(os.dup(place.descriptor), tuple(parts), where, make=True)
        return Place(descriptor, name, where)

    def _take_apart(self, path: str) -> _Request:
        if not path:
            raise _denied(path, "it is empty")
        if len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
            raise _denied(path, f"it is longer than {MAX_PATH_BYTES} bytes")
        # "a//b" and "a/./b" are how people and scripts write "a/b".
        named = [part for part in path.split("/") if part not in ("", ".")]
        if fault := next(filter(None, map(fault_of_name, named)), ""):
            raise _denied(path, fault)
        directory = path.endswith(("/", "/.")) or not named
        if not path.startswith("/"):
            return _Request(self.directories[0], tuple(named), directory)
        candidates = []
        for root in self.directories:
            above = [part for part in root.split("/") if part]
            if named[: len(above)] == above:
                candidates.append((len(above), root))
        if not candidates:
            raise _denied(path, f"it is not below {' or '.join(self.directories)}")
        depth, root = max(candidates)
        rest = tuple(named[depth:])
        return _Request(root, rest, directory or not rest)

    def _open_root(self, root: str) -> int:
        try:
            return os.open(root, _DIRECTORY)
        except OSError as exc:
            raise TargetWriteError(
                f"cannot open the directory {root}",
                why=exc.strerror or str(exc),
                remedy="make it, owned by the user the node runs as, or name another one",
                key=KEY,
            ) from exc

    def _descend(self, descriptor: int, parts: tuple[str, ...], path: str, *, make: bool) -> int:
        """The descriptor of the directory *parts* lead to from that of *descriptor*, which is
        closed in all cases."""
        for index, part in enumerate(parts):
            try:
                below = _open_directory(descriptor, part, make=make)
            except OSError as exc:
                way = "/".join(parts[: index + 1])
                if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise _denied(path, f"{way!r} is a symbolic link or no directory") from exc
                if not make:
                    raise
                raise TargetWriteError(
                    f"cannot use the directory {way!r} on the way to {path!r}",
                    why=exc.strerror or str(exc),
                ) from exc
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor


def _open_directory(parent: int, name: str, *, make: bool) -> int:
    # With O_DIRECTORY and O_NOFOLLOW a symbolic link is ENOTDIR.
    flags = _DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    make_directory(parent, name)
    return os.open(name, flags, dir_fd=parent)


def make_directory(parent: int, name: str) -> None:
    """Make the directory *name*, mode 0755, and its entry durable. One that is there is left alone.

    Raises OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
        os.fsync(parent)


def _denied(path: str, why: str) -> PathDeniedError:
    shown = path if len(path) <= 256 else path[:253] + "..."
    return PathDeniedError(
        f"the path {shown!r} is not allowed",
        why=why,
        remedy="name a place below one of the directories for transfers, or allow another one",
        key=KEY,
    )

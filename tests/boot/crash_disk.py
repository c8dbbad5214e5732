"""A disk that remembers every operation, and what it would hold had the machine died after it.

While :meth:`CrashDisk.recording` is open, the functions of ``os`` that change files below the root
are noted, in order. :meth:`CrashDisk.after` replays the first of them under one of ``VARIANTS``:
what a killed process leaves, and four things POSIX allows a power cut to leave. Only what was
synced is sure to be there then; what was not may be missing, torn, or there, the contents of files
and the entries of directories apart.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

VARIANTS = {
    # name: (directory entries that were not synced survive, what of unsynced contents survives)
    "killed": (True, "all"),
    "nothing unsynced": (False, "none"),
    "entries without contents": (True, "none"),
    "entries with torn contents": (True, "torn"),
    "contents without entries": (False, "all"),
}
Tree = Mapping[str, bytes | None]
"""Contents by path relative to the root; None is a directory."""


class Inode:
    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.synced = bytes(content)
        self.newest = 0, 0
        """Where the newest write since the last sync begins and ends."""
        self.replaced = b""
        """What was there before it."""

    def write(self, offset: int, data: bytes) -> None:
        self.content += bytes(max(0, offset - len(self.content)))
        self.replaced = bytes(self.content[offset : offset + len(data)])
        self.content[offset : offset + len(data)] = data
        self.newest = offset, offset + len(data)

    def sync(self) -> None:
        self.synced = bytes(self.content)
        self.newest = 0, 0
        self.replaced = b""

    def survives(self, how: str) -> bytes:
        if how == "none":
            return self.synced
        torn = bytearray(self.content)
        if how == "torn":
            begin, end = self.newest
            middle = (begin + end) // 2
            torn[middle:end] = self.replaced[middle - begin :]
        return bytes(torn)


class CrashDisk:
    """*root* holds what was there, and synced, before the recording."""

    def __init__(self, root: Path) -> None:
        self.operations: list[tuple[Any, ...]] = []
        self._root = root
        self._turn = threading.Lock()
        self._before = read_tree(root)
        self._inodes = {
            path: number
            for number, path in enumerate(self._before)
            if self._before[path] is not None
        }
        self._contents = {n: self._before[path] or b"" for path, n in self._inodes.items()}
        self._names: dict[str, int | None] = {p: self._inodes.get(p) for p in self._before}
        self._files: dict[int, tuple[int | str, int]] = {}
        """By descriptor: the inode and the offset, or a directory's path."""
        self._next = len(self._before)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Nothing is really synced meanwhile: the test would wait for the disk all the time."""
        wrappers: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
            "open": self._wrap_open,
            "close": self._wrap_close,
            "write": self._wrap_write,
            "pwrite": self._wrap_pwrite,
            "ftruncate": self._wrap_ftruncate,
            "fsync": self._wrap_sync,
            "fdatasync": self._wrap_sync,
            "rename": self._wrap_rename,
            "link": self._wrap_link,
            "unlink": self._wrap_unlink,
            "mkdir": self._wrap_mkdir,
        }
        with ExitStack() as stack:
            for name, wrap in wrappers.items():
                stack.enter_context(mock.patch.object(os, name, wrap(getattr(os, name))))
            yield

    def after(self, count: int, variant: str) -> Tree:
        """What is left after the first *count* operations."""
        entries_survive, contents_survive = VARIANTS[variant]
        inodes = {number: Inode(content) for number, content in self._contents.items()}
        names: dict[str, int | None] = {path: self._inodes.get(path) for path in self._before}
        synced = dict(names)
        for operation in self.operations[:count]:
            match operation:
                case "create", path, number:
                    names[path] = number
                    inodes[number] = Inode()
                case "mkdir", path:
                    names[path] = None
                case "rename", path, target:
                    names[target] = names.pop(path)
                case "link", path, target:
                    names[target] = names[path]
                case "unlink", path:
                    del names[path]
                case "write", number, offset, data:
                    inodes[number].write(offset, data)
                case "truncate", number, size:
                    content = inodes[number].content
                    del content[size:]
                    content += bytes(size - len(content))
                case "sync", int(number):
                    inodes[number].sync()
                case "sync", str(directory):
                    synced = {p: n for p, n in synced.items() if os.path.dirname(p) != directory}
                    synced |= {p: n for p, n in names.items() if os.path.dirname(p) == directory}
        left = names if entries_survive else synced
        return {
            path: None if number is None else inodes[number].survives(contents_survive)
            for path, number in left.items()
            if all(str(parent) in left for parent in list(Path(path).parents)[:-1])
        }

    def _relative(self, path: Any, directory: int | None = None) -> str | None:
        if directory is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
        relative = os.path.relpath(os.fspath(path), self._root)
        return None if relative.startswith("..") else "" if relative == "." else relative

    def _wrap_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def wrapped(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            with self._turn:
                descriptor = real(path, flags, *rest, **more)
                name = self._relative(path, more.get("dir_fd"))
                if name is None:
                    return descriptor
                if flags & os.O_DIRECTORY:
                    self._files[descriptor] = name, 0
                    return descriptor
                number = self._names.get(name)
                if number is None:
                    number = self._next = self._next + 1
                    self._names[name] = number
                    self.operations.append(("create", name, number))
                self._files[descriptor] = number, 0
                return descriptor

        return wrapped

    def _wrap_close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(descriptor: int) -> None:
            with self._turn:
                self._files.pop(descriptor, None)
                real(descriptor)

        return wrapped

    def _wrap_write(self, real: Callable[..., int]) -> Callable[..., int]:
        def wrapped(descriptor: int, data: bytes) -> int:
            with self._turn:
                written = real(descriptor, data)
                if descriptor in self._files:
                    number, offset = self._files[descriptor]
                    self.operations.append(("write", number, offset, bytes(data[:written])))
                    self._files[descriptor] = number, offset + written
                return written

        return wrapped

    def _wrap_pwrite(self, real: Callable[..., int]) -> Callable[..., int]:
        def wrapped(descriptor: int, data: bytes, offset: int) -> int:
            with self._turn:
                written = real(descriptor, data, offset)
                if descriptor in self._files:
                    number = self._files[descriptor][0]
                    self.operations.append(("write", number, offset, bytes(data[:written])))
                return written

        return wrapped

    def _wrap_ftruncate(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(descriptor: int, size: int) -> None:
            with self._turn:
                real(descriptor, size)
                if descriptor in self._files:
                    self.operations.append(("truncate", self._files[descriptor][0], size))

        return wrapped

    def _wrap_sync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(descriptor: int) -> None:
            with self._turn:
                if descriptor in self._files:
                    self.operations.append(("sync", self._files[descriptor][0]))

        return wrapped

    def _wrap_rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(source: Any, target: Any, **more: Any) -> None:
            with self._turn:
                real(source, target, **more)
                old, new = self._both(source, target, more)
                self._names[new] = self._names.pop(old)
                self.operations.append(("rename", old, new))

        return wrapped

    def _wrap_link(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(source: Any, target: Any, **more: Any) -> None:
            with self._turn:
                real(source, target, **more)
                old, new = self._both(source, target, more)
                self._names[new] = self._names[old]
                self.operations.append(("link", old, new))

        return wrapped

    def _both(self, source: Any, target: Any, more: Mapping[str, Any]) -> tuple[str, str]:
        old = self._relative(source, more.get("src_dir_fd"))
        new = self._relative(target, more.get("dst_dir_fd"))
        assert old is not None
        assert new is not None
        return old, new

    def _wrap_unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: Any, **more: Any) -> None:
            with self._turn:
                real(path, **more)
                name = self._relative(path, more.get("dir_fd"))
                if name is not None:
                    del self._names[name]
                    self.operations.append(("unlink", name))

        return wrapped

    def _wrap_mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: Any, *rest: Any, **more: Any) -> None:
            with self._turn:
                real(path, *rest, **more)
                name = self._relative(path, more.get("dir_fd"))
                if name is not None:
                    self._names[name] = None
                    self.operations.append(("mkdir", name))

        return wrapped


def read_tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def write_tree(root: Path, tree: Tree) -> None:
    """Make *root*, which must not exist, hold *tree*."""
    root.mkdir()
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)

"""The indexes of a node, and what fills them: files that were received, one after the other."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from novacron.dwcp.hde.blocks.core import MAX_BLOCKS
from novacron.dwcp.hde.blocks.cutting import Cut, blocks_of, take
from novacron.dwcp.hde.blocks.errors import BlockIndexError
from novacron.dwcp.hde.blocks.metrics import INDEX_BYTES, INDEXED

if TYPE_CHECKING:
    # SQLite takes 5 ms to import, and most nodes boot without anybody sending anything.
    from novacron.dwcp.hde.blocks.index import BlockIndex, IndexFacts

logger = logging.getLogger("novacron.dwcp.blocks")

MAX_TENANTS: Final = 64
"""Indexes that are kept; of another one more the one that was not used for longest goes."""
MAX_QUEUE: Final = 256
"""Files that wait to be indexed. What comes beyond that is not: it costs a later transfer time."""
_ROW_BYTES: Final = 56
"""Of the index for each block, measured: a row, the same by file, and what the trees leave free."""
_BATCH_BLOCKS: Final = 512
"""Cut between two looks at whether to go on: some 32 MiB."""
_REST: Final = 1.0
"""After a batch indexing rests as long as the batch took: at most half of one CPU, beside VMs."""


class DedupSettings(Protocol):
    """What is read of the section ``dwcp.hde``."""

    @property
    def dedup(self) -> str: ...
    @property
    def dedup_min_bytes(self) -> int: ...
    @property
    def index_max_bytes(self) -> int: ...
    @property
    def tenant(self) -> str: ...


class _Waiting:
    def __init__(self, tenant: str, path: str) -> None:
        self.tenant = tenant
        self.path = path


class BlockLibrary:
    """Made with the node's transfers, which start :meth:`run` and end with :meth:`close`.

    Args:
      directory: Of the indexes; made when the first one is.
      cut: None: files cannot be cut on this node, and *why*.
      sweep: Forget what was indexed in part. Not for others than the node.
    """

    def __init__(
        self,
        directory: Path,
        settings: DedupSettings,
        cut: Cut | None,
        why: str = "",
        *,
        sweep: bool = True,
    ) -> None:
        self._sweep = sweep
        self.settings = settings
        self.cut = cut
        self.why = why if cut is None else ""
        self._directory = directory
        self._indexes: dict[str, BlockIndex] = {}
        """By tenant, the one used last at the end."""
        self._lock = threading.RLock()
        self._queue: deque[_Waiting] = deque()
        self._queued = trio.lowlevel.ParkingLot()
        self._working = ""
        self._skipped = 0
        self._indexed = 0
        self._size_bytes = 0
        self._closed = False
        self.threads = trio.CapacityLimiter(2)
        """That read, cut and look up: more would only take CPUs from VMs and make disks seek."""

    @property
    def usable(self) -> bool:
        """Whether this node deduplicates."""
        return self.cut is not None and self.settings.dedup != "never"

    # For transfers ---------------------------------------------------------------------------

    @contextmanager
    def index_of(self, tenant: str, *, make: bool = False) -> Iterator[BlockIndex | None]:
        """In a thread. The tenant's index; None where there is none and *make* does not say to make
        it, or where it cannot be used, which is logged: it is a help and no more. So it is where
        it turns out to be damaged on the way: then what is in the ``with`` is left."""
        import sqlite3

        from novacron.dwcp.hde.blocks.index import remove_index

        try:
            index = self._open(tenant, make)
        except (OSError, sqlite3.Error) as exc:
            logger.warning("the index of blocks cannot be used: %s", exc)
            index = None
        try:
            yield index
        except sqlite3.Error as exc:
            logger.warning("the index of blocks is given up: %s", exc)
            if index is None:
                return
            with self._lock:
                if self._indexes.get(tenant) is index:
                    del self._indexes[tenant]
                index.close()
            if type(exc) is sqlite3.DatabaseError:  # its subclasses say nothing about the file
                with contextlib.suppress(OSError):
                    remove_index(index.path)

    def _open(self, tenant: str, make: bool) -> BlockIndex | None:
        from novacron.dwcp.hde.blocks.index import file_name, open_index, remove_index

        with self._lock:
            if self._closed:
                return None
            index = self._indexes.pop(tenant, None)
            if index is None:
                name = file_name(tenant)
                if not (self._directory / name).exists():
                    if not make:
                        return None
                    self._make_room(name, remove_index)
                index = open_index(self._directory, tenant, sweep=self._sweep)
            self._indexes[tenant] = index
            return index

    def _make_room(self, name: str, remove: Callable[[Path], None]) -> None:
        """For one more tenant."""
        try:
            found = sorted(self._directory.glob("*.sqlite"), key=lambda path: path.stat().st_mtime)
        except OSError:
            return
        others = [path for path in found if path.name != name]
        for path in others[: max(0, len(others) - MAX_TENANTS + 1)]:
            for tenant, index in list(self._indexes.items()):
                if index.path == path:
                    self._indexes.pop(tenant).close()
            remove(path)

    def offer(self, tenant: str, path: str, size: int) -> None:
        """A file was received whole: index it when there is time."""
        if not self.usable or size < self.settings.dedup_min_bytes:
            return
        if len(self._queue) >= MAX_QUEUE:
            self._skipped += 1
            return
        self._queue.append(_Waiting(tenant, path))
        self._queued.unpark_all()

    # Filling ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Index what was offered, until cancelled."""
        while True:
            while not self._queue:
                await self._queued.park()
            waiting = self._queue.popleft()
            self._working = waiting.path
            try:
                await self.index_file(waiting.tenant, waiting.path)
            except (OSError, EOFError) as exc:
                logger.info("a file is not indexed: %s: %s", waiting.path, exc)
            finally:
                self._working = ""

    async def index_file(
        self,
        tenant: str,
        path: str,
        *,
        descriptor: int | None = None,
        gently: bool = True,
        most: int | None = None,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Index *path* for *tenant*, where that was not done.

        Args:
          descriptor: Of the file, where it is open already; it stays the caller's.
          gently: Rest between batches.
          most: Bytes of it; None: all.
          go_on: Asked between batches.

        Raises:
          OSError, EOFError: it cannot be read, or is no regular file.
        """
        work = _Indexing(self, tenant, path, most)
        try:
            await trio.to_thread.run_sync(work.open, descriptor, limiter=self.threads)
            while go_on():
                began = trio.current_time()
                if not await trio.to_thread.run_sync(work.step, limiter=self.threads):
                    break
                if gently:
                    await trio.sleep((trio.current_time() - began) * _REST)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(work.close)
        self._indexed += work.count
        INDEXED.inc(by=work.count)
        await trio.to_thread.run_sync(self._bound, limiter=self.threads)

    def _bound(self) -> None:
        """In a thread: forget what was of no use for longest until the indexes fit."""
        import sqlite3

        try:
            with self._lock:
                while (size := self._measure()) > self.settings.index_max_bytes:
                    oldest = min(self._indexes.values(), key=lambda index: index.oldest())
                    if not oldest.evict():
                        break
                self._size_bytes = size
        except (OSError, sqlite3.Error) as exc:
            logger.warning("the size of the indexes of blocks cannot be kept: %s", exc)
        INDEX_BYTES.set(self._size_bytes)

    def _measure(self) -> int:
        """Of all indexes; those that are not open are opened, since they may have to shrink."""
        from novacron.dwcp.hde.blocks.index import open_index, tenant_of

        known = {index.path for index in self._indexes.values()}
        for path in self._directory.glob("*.sqlite"):
            if path not in known and (tenant := tenant_of(path)) is not None:
                self._indexes[tenant] = open_index(self._directory, tenant, sweep=self._sweep)
        return sum(index.size_bytes() for index in self._indexes.values())

    @property
    def max_blocks(self) -> int:
        """Of one file; what lies behind is not indexed. Half of what all may take."""
        return max(MAX_BLOCKS, self.settings.index_max_bytes // 2 // _ROW_BYTES)

    # For people ------------------------------------------------------------------------------

    def facts(self) -> list[IndexFacts]:
        """In a thread: of every index. Raises BlockIndexError."""
        with _working(self._directory), self._lock:
            if self._directory.is_dir():
                self._measure()
            return [index.facts() for index in self._indexes.values()]

    def clear(self, tenant: str | None) -> None:
        """In a thread: forget everything of *tenant*, or of all. Raises BlockIndexError."""
        with _working(self._directory), self._lock:
            if self._directory.is_dir():
                self._measure()
            for name, index in self._indexes.items():
                if tenant in (None, name):
                    index.clear()
        self._bound()

    def statistics(self) -> dict[str, Any]:
        return {
            "dedup": self.settings.dedup if self.cut is not None else "never",
            "why": self.why,
            "tenants": len(self._indexes),
            "index_bytes": self._size_bytes,
            "blocks_indexed": self._indexed,
            "files_waiting": len(self._queue) + bool(self._working),
            "files_skipped": self._skipped,
        }

    def close(self) -> None:
        """In a thread, when :meth:`run` is over. Harmless when repeated."""
        with self._lock:
            self._closed = True
            for index in self._indexes.values():
                index.close()
            self._indexes.clear()


@contextmanager
def _working(directory: Path) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise BlockIndexError(
            f"the indexes of blocks in {directory} cannot be used",
            why=str(exc),
            remedy="stop the node and delete them; what is sent next moves whole",
        ) from exc


class _Indexing:
    """A file while it is indexed. In threads, one call at a time."""

    def __init__(self, library: BlockLibrary, tenant: str, path: str, most: int | None) -> None:
        self._most = most
        self._library = library
        self._tenant = tenant
        self._path = os.path.abspath(path)
        self._descriptor = -1
        self._number = 0
        self._blocks: Iterator[tuple[int, int, bytes]] | None = None
        self._stamp: Any = None
        self._all = False
        self.count = 0

    def open(self, descriptor: int | None) -> None:
        from novacron.dwcp.hde.blocks.index import Stamp

        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags) if descriptor is None else os.dup(descriptor)
        found = os.fstat(self._descriptor)
        self._stamp = Stamp.of(found)
        cut = self._library.cut
        if cut is None or found.st_size < self._library.settings.dedup_min_bytes:
            return
        with self._library.index_of(self._tenant, make=True) as index:
            if index is None or index.knows(os.fsencode(self._path), self._stamp):
                return
            self._number = index.begin(os.fsencode(self._path), self._stamp)
            size = found.st_size if self._most is None else min(self._most, found.st_size)
            self._blocks = blocks_of(self._descriptor, size, cut)
            self._all = size == found.st_size

    def step(self) -> bool:
        """Whether there is more."""
        from novacron.dwcp.hde.blocks.index import Stamp

        if self._blocks is None:
            return False
        batch = take(self._blocks, _BATCH_BLOCKS)
        with self._library.index_of(self._tenant) as index:
            if index is None:
                return False
            index.add(self._number, batch)
            self.count += len(batch)
            if len(batch) == _BATCH_BLOCKS and self.count < self._library.max_blocks:
                return True
            if Stamp.of(os.fstat(self._descriptor)) != self._stamp:  # somebody writes to it
                index.forget([self._number])
            elif self._all:
                index.complete(self._number)
        return False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

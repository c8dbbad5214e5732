"""Connections that each have a thread of their own, and one line of calls before them.

A hop through Trio's worker threads costs some 70 µs, most of it for taking a thread from the cache,
a limiter's token, and a wake-up of the loop for each call. Here a thread that has done one call takes
the next one from the line by itself, and the loop is woken once for all that was done meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import trio

from novacron.database.connection import Connection
from novacron.database.sqlite_calls import Action, Call, Group, Hold, Item
from novacron.database.store import DatabaseLimitError


class ConnectionThread:
    """One connection and the thread that uses it, started when it is first needed.

    Args:
      following: called in the thread: the next item, None if none waits.
      finished: called on the loop: what was done, None when the thread began to wait.
    """

    def __init__(
        self,
        connection: Connection,
        following: Callable[[], Item | None],
        finished: Callable[[ConnectionThread, Item | None], None],
    ) -> None:
        self.connection = connection
        self._following = following
        self._finished = finished
        self.held = False
        """Whether it is somebody's, and takes nothing from the line."""
        self._given: SimpleQueue[Item | None] = SimpleQueue()
        self._done: deque[Item | None] = deque()
        self._told = False
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    def start(self) -> None:
        """On the loop, while nobody has the thread. Harmless when repeated.

        Raises:
          DatabaseLimitError: the process may have no more threads.
        """
        self._token = trio.lowlevel.current_trio_token()
        if self._thread is not None:
            return
        # A daemon: a statement that hangs in the kernel must not keep the process.
        thread = threading.Thread(target=self._serve, name="novacron sqlite", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise DatabaseLimitError(
                "no thread can be started for a database connection",
                why=str(error),
                remedy="raise the limit of threads: TasksMax= of the systemd unit, or ulimit -u",
            ) from error
        self._thread = thread

    def give(self, item: Item) -> None:
        """On the loop, while the thread waits."""
        self._given.put(item)

    def end(self) -> None:
        """On the loop, while the thread waits: let it end, and wait until it did."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._given.put(None)
            thread.join()

    def _serve(self) -> None:
        while (item := self._given.get()) is not None:
            while item is not None:
                if isinstance(item, Hold):
                    self.held = True
                item.perform(self.connection)
                following = None if self.held else self._following()
                # Looked at before the item is handed over: whoever was waiting for it may give the
                # thread back at once, and then it must not say that it waits a second time.
                waits = following is None and not self.held
                self._done.append(item)
                if waits:
                    self._done.append(None)
                if not self._tell():
                    return
                item = following

    def _tell(self) -> bool:
        # The loop clears the mark before it looks at what was done, so that whatever is added
        # while the mark is set will be seen.
        if self._told:
            return True
        self._told = True
        assert self._token is not None
        try:
            self._token.run_sync_soon(self._deliver)
        except trio.RunFinishedError:
            return False
        return True

    def _deliver(self) -> None:
        self._told = False
        while self._done:
            self._finished(self, self._done.popleft())


class ConnectionPool:
    """Runs calls on any of *connections*, first come, first served.

    All methods are called on the loop.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._waiting: deque[Item] = deque()
        self._lock = threading.Lock()
        """Around looking at the line and changing it: threads take from it, while the loop adds, lets
        go whoever was cancelled, and refuses all."""
        self._threads = [
            ConnectionThread(connection, self._following, self._finished)
            for connection in connections
        ]
        self._idle = list(self._threads)
        self._all_idle = trio.Event()

    @property
    def waiting(self) -> int:
        """Items that no thread has begun."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a new call would have to wait."""
        return not self._idle

    async def run(self, item: Item) -> None:
        """Give *item* to a thread, and wait until it is done or the caller is cancelled; then it was
        not begun, or its work was told to end and has. A :class:`Hold` has its thread afterwards."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._idle:
            with self._lock:
                self._waiting.append(item)
        else:
            thread = self._idle[-1]
            thread.start()
            self._idle.pop()
            if isinstance(item, Hold):
                thread.held = True
                item.thread = thread
                return
            thread.give(item)
        await self._until_done(item)

    async def use(self, thread: ConnectionThread, item: Item) -> None:
        """Like :meth:`run`, on a thread that the caller holds and that waits."""
        await trio.lowlevel.checkpoint_if_cancelled()
        thread.give(item)
        await self._until_done(item)

    def release(self, thread: ConnectionThread) -> None:
        """Give back a thread that was held and waits."""
        thread.held = False
        self._go_on(thread)

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Let every call that no thread has begun fail with an *error* of its own."""
        with self._lock:
            refused = list(self._waiting)
            self._waiting.clear()
        for item in refused:
            item.error = error()
            item.wake()

    async def idle(self) -> None:
        """Wait until no thread does anything nor is held."""
        while len(self._idle) < len(self._threads):
            # One event for all that wait: a store can be closed twice at once.
            if self._all_idle.is_set():
                self._all_idle = trio.Event()
            await self._all_idle.wait()

    async def close(self) -> None:
        """Close the connections and end the threads, which must be idle. Harmless when repeated."""
        for thread in self._threads:
            thread.held = True
            if thread.connection.is_open:
                thread.start()
                await self.use(thread, Action(thread.connection.close))
            thread.end()

    async def _until_done(self, item: Item) -> None:
        item.task = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            with self._lock:
                begun = item not in self._waiting
                if begun:
                    item.cut()
                    return trio.lowlevel.Abort.FAILED
                self._waiting.remove(item)
            item.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _following(self) -> Item | None:
        """On any thread: what is to be done next."""
        with self._lock:
            if not self._waiting:
                return None
            first = self._waiting.popleft()
            alone = not self._waiting or not self._waiting[0].joins
            others = len(self._waiting)
        if alone or not isinstance(first, Call) or not first.joins:
            return first
        return Group(first, others, self._joining, self._put_back)

    def _joining(self) -> Call[Any] | None:
        """In the thread: the next in the line if it may join what is being done."""
        with self._lock:
            if self._waiting and isinstance(item := self._waiting[0], Call) and item.joins:
                self._waiting.popleft()
                return item
        return None

    def _put_back(self, calls: Sequence[Call[Any]]) -> list[Call[Any]]:
        """In the thread: nothing of *calls* was kept, and each is to be done by itself, but for those
        that were cancelled meanwhile, which are returned."""
        with self._lock:
            again = [call for call in calls if not call.cancelled]
            for call in again:
                call.joins = False
                call.error = None
            self._waiting.extendleft(reversed(again))
            return [call for call in calls if call.cancelled]

    def _finished(self, thread: ConnectionThread, item: Item | None) -> None:
        if item is None:
            self._go_on(thread)
            return
        if isinstance(item, Hold):
            item.thread = thread
        item.wake()

    def _go_on(self, thread: ConnectionThread) -> None:
        # Whatever came while the thread was finding the line empty.
        item = self._following()
        if item is not None:
            thread.give(item)
            return
        self._idle.append(thread)
        if len(self._idle) == len(self._threads):
            self._all_idle.set()

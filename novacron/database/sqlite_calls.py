"""What a connection's thread is given to do: one statement, several in one transaction, or to be held.

A call is made on the loop, done in the thread, and taken back by the loop. The thread writes its
outcome before it hands it over and never again, so that neither side needs a lock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from novacron.database.connection import Connection, StatementInterruptedError

if TYPE_CHECKING:
    from novacron.database.sqlite_pool import ConnectionThread

T = TypeVar("T")

MAX_TOGETHER = 64
"""Changes in one transaction: past it the wait for the disk is a small share of each already, and the
first one would wait long for its answer."""

TOGETHER_SECONDS = 0.05
"""How long changes join a transaction, and how long a later one may take in it: what the ones before
it can wait at most for others, apart from the disk."""


class Item:
    """Anything that can stand in a pool's line."""

    __slots__ = ("error", "task")

    joins = False
    """Whether it may share a transaction with others that wait beside it."""

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        """Who waits for it, as long as anybody does."""
        self.error: Exception | None = None

    def perform(self, connection: Connection) -> None:
        """In the thread: do it; what goes wrong is kept in ``error``."""

    def wake(self) -> None:
        """On the loop: let whoever waits go on."""
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def cut(self) -> None:
        """On the loop: whoever waits wants it to end soon."""


class Hold(Item):
    """Asks for a thread, which stays with whoever asked until it is given back."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        super().__init__()
        self.thread: ConnectionThread | None = None
        """Set when the turn has come."""


class Call(Item, Generic[T]):
    """One piece of work with a connection, under a deadline.

    Args:
      work: run in the thread; repeated while another process holds the lock it needs, so it must
        begin with the statement that takes the lock.
      within: seconds from now, the wait for a thread included.
      keep_transaction: it is part of a transaction, which stays open.
      joins: see :attr:`Item.joins`.
    """

    __slots__ = (
        "cancelled",
        "deadline",
        "joins",
        "keep_transaction",
        "seconds",
        "value",
        "within",
        "work",
    )

    value: T

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], T],
        within: float,
        *,
        keep_transaction: bool = False,
        joins: bool = False,
    ) -> None:
        super().__init__()
        self.work = work
        self.within = within
        self.deadline = time.monotonic() + within
        self.keep_transaction = keep_transaction
        self.joins = joins
        self.cancelled = False
        self.seconds = -1.0
        """What it took once its turn had come; negative before."""

    def perform(self, connection: Connection) -> None:
        started = time.monotonic()
        try:
            self.value = connection.run(self)
        except Exception as error:
            self.error = error
        self.seconds = time.monotonic() - started

    def cut(self) -> None:
        self.cancelled = True


class Action(Item):
    """Something that takes no deadline and cannot be interrupted: a commit, a rollback."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self._action = action

    def perform(self, connection: Connection) -> None:
        try:
            self._action()
        except Exception as error:
            self.error = error


class Group(Item):
    """Changes that wait in a row, in one transaction: one wait for the disk for all.

    As in PostgreSQL's and InnoDB's group commit, nobody waits for others to come. Each is taken from
    the line when its turn has come: until then it can leave, and its deadline holds.

    Args:
      others: how many wait behind *first*. Whoever comes later goes with the next, so that the loop
        serves those that are done while the disk is written.
      following: called in the thread: takes the next change from the line, None if none waits.
      put_back: called in the thread: puts those that have to be done one by one before all others,
        and returns those whose callers wait for an end only.
    """

    __slots__ = ("_begun", "_following", "_most", "_put_back")

    def __init__(
        self,
        first: Call[Any],
        others: int,
        following: Callable[[], Call[Any] | None],
        put_back: Callable[[Sequence[Call[Any]]], list[Call[Any]]],
    ) -> None:
        super().__init__()
        self._begun = [first]
        self._most = min(1 + others, MAX_TOGETHER)
        self._following = following
        self._put_back = put_back

    def perform(self, connection: Connection) -> None:
        started = time.monotonic()
        until = started + TOGETHER_SECONDS
        try:
            together = connection.run_together(self._take(until), until)
        except Exception as error:
            for call in self._begun:
                call.error = error
            together = True
        if together:
            for call in self._begun:
                call.seconds = time.monotonic() - started
        else:
            self._begun = self._put_back(self._begun)
            for call in self._begun:
                call.error = StatementInterruptedError()

    def _take(self, until: float) -> Iterator[Call[Any]]:
        yield self._begun[0]
        while len(self._begun) < self._most and time.monotonic() < until:
            call = self._following()
            if call is None:
                return
            self._begun.append(call)
            yield call

    def wake(self) -> None:
        for call in self._begun:
            call.wake()

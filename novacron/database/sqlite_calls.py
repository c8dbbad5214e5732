"""What a connection's thread is given to do: one statement, several in one transaction, or to be held.

A call is made on the loop, done in the thread, and taken back by the loop. The thread writes its
outcome before it hands it over and never again, so that neither side needs a lock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from novacron.database.connection import Connection

if TYPE_CHECKING:
    from novacron.database.sqlite_pool import ConnectionThread

T = TypeVar("T")


class Item:
    """Anything that can stand in a pool's line."""

    __slots__ = ("error", "task")

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
      joins: it may share a transaction with others that wait beside it.
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
        self.error = None
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
    """Changes that waited at the same time, in one transaction: one wait for the disk for all.

    As in PostgreSQL's and InnoDB's group commit, nobody waits for others to come: what comes while
    the thread is busy is the next group.
    """

    __slots__ = ("calls",)

    def __init__(self, calls: Sequence[Call[Any]]) -> None:
        super().__init__()
        self.calls = calls

    def perform(self, connection: Connection) -> None:
        started = time.monotonic()
        try:
            together = connection.run_together(self.calls)
        except Exception as error:
            for call in self.calls:
                call.error = error
            together = True
        if together:
            for call in self.calls:
                call.seconds = time.monotonic() - started
            return
        for call in self.calls:
            call.perform(connection)

    def wake(self) -> None:
        for call in self.calls:
            call.wake()

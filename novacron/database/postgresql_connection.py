"""One libpq connection, awaited on Trio: statements go out together, answers come back in order.

The connection is in libpq's pipeline mode all its life, so that whatever belongs together (a setting,
``BEGIN``, the statement, its preparation) is one round trip. Waiting is Trio's, on the socket; there
is no thread. libpq documents the protocol of these calls:
https://www.postgresql.org/docs/17/libpq-pipeline-mode.html and …/libpq-async.html; psycopg offers
them as ``psycopg.pq``. Chosen by measurement: docs/adr/0120.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import select
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio
from psycopg import Error as DriverError
from psycopg import pq
from psycopg.adapt import Transformer

from novacron.database.postgresql_errors import (
    CANCELLED,
    STALE_STATEMENT,
    is_fatal,
    says_unreplicated,
    sqlstate,
)
from novacron.database.postgresql_lineage import Lineage
from novacron.database.postgresql_mode import Mode
from novacron.database.postgresql_parameters import Bound
from novacron.database.postgresql_target import Endpoint
from novacron.database.postgresql_values import CONTEXT
from novacron.database.store import DatabaseMisuseError, Row

CANCEL_GRACE = 2.0
"""Seconds the server gets to let go of a statement; then the connection is closed instead."""

PREPARE_AFTER = 2
"""Uses on one connection after which a statement is prepared: what is run once is not worth it."""
MOST_PREPARED = 200
"""Prepared statements kept on a connection; each costs the server some kilobytes."""
CHUNK_ROWS = 512
"""Rows libpq hands over at once, so that one too many is noticed long before the last."""

IDLE, IN_TRANSACTION = pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS
# Plain numbers: comparing with members of an enumeration takes several times as long.
_BAD = int(pq.ConnStatus.BAD)
_TUPLES, _CHUNK = int(pq.ExecStatus.TUPLES_OK), int(pq.ExecStatus.TUPLES_CHUNK)
_OK = int(pq.ExecStatus.COMMAND_OK)
_SYNC = int(pq.ExecStatus.PIPELINE_SYNC)
_ABORTED = int(pq.ExecStatus.PIPELINE_ABORTED)
_FAILED = int(pq.PipelineStatus.ABORTED)
_CHANGES = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE")
_FAILURES = (int(pq.ExecStatus.FATAL_ERROR), int(pq.ExecStatus.NONFATAL_ERROR))


class LostError(Exception):
    """The connection broke while something was under way. *result* is the server's last word."""

    def __init__(
        self, why: str, result: pq.abc.PGresult | None = None, *, sent: bool = True
    ) -> None:
        super().__init__(why)
        self.why = why
        self.result = result
        self.sent = sent
        """Whether anything of it may have reached the server."""


class OverdueError(Exception):
    """The deadline passed; the server has let go of the statement, and nothing was done."""


class Step:
    """One statement of an exchange."""

    __slots__ = ("bound", "first", "optional", "rows", "sync")

    def __init__(
        self,
        bound: Bound,
        rows: int = 0,
        *,
        first: bool = False,
        sync: bool = True,
        optional: bool = False,
    ) -> None:
        self.bound = bound
        self.rows = rows
        """Rows that are kept; one more is noticed."""
        self.first = first
        """Whether more than :attr:`rows` are no failure."""
        self.sync = sync
        """Whether a failure up to here leaves what comes after it untouched."""
        self.optional = optional
        """Whether the server may refuse it; then there is an empty row."""


class Answer:
    """What became of the statements of one exchange."""

    __slots__ = ("changed", "error", "overflow", "rows", "stale", "tag", "unreplicated")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        """Of all steps that wanted any, in order."""
        self.overflow = False
        self.changed = 0
        self.tag = b""
        """The command tag of the last statement that ended well."""
        self.error: pq.abc.PGresult | None = None
        """The first failure."""
        self.stale = False
        """Whether it failed for a prepared statement whose tables have changed since."""
        self.unreplicated = False
        """Whether it was committed without the standby that commits are to wait for."""


class _Expected:
    """An answer that is still to come."""

    __slots__ = ("first", "kept", "key", "name", "optional", "rows", "setting", "started")

    def __init__(
        self, rows: int, first: bool = False, key: _Key | None = None, name: bytes = b""
    ) -> None:
        self.first = first
        self.kept = 0
        self.rows = rows
        """-1: a synchronisation point."""
        self.key = key
        """Set where it is the preparation of a statement."""
        self.name = name
        self.setting = False
        """Whether it sets the session's mode; a failure is then the mode's and nobody else's."""
        self.optional = False
        self.started = False


_Key = tuple[bytes, tuple[int, ...]]


class Connection:
    """An open connection; made by :func:`novacron.database.postgresql_dial.dial`. Used by one task
    at a time. Whoever holds it calls :meth:`close`."""

    def __init__(self, raw: pq.abc.PGconn, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.where = endpoint.address
        self.pid = raw.backend_pid
        self.mode: Mode | None = None
        """What the session was last set to, as far as it is known."""
        self.busy_since: float | None = None
        """Trio's time of the last sign of life while something is under way."""
        self.idle_since = 0.0
        self.lineage: Lineage | None = None
        self._raw = raw
        self._descriptor = raw.socket
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._transformer = Transformer(CONTEXT)
        self._prepared: dict[_Key, bytes] = {}
        self._uses: dict[_Key, int] = {}
        self._names = itertools.count()
        # Names that no other connection uses: behind a pooler that hands sessions around, one that is
        # not known fails, where another's statement of that name would be executed.
        self._stem = secrets.token_hex(4).encode()
        self._expected: deque[_Expected] = deque()
        self._answer = Answer()
        self._closed = False
        raw.notice_handler = self._note_warning
        raw.nonblocking = 1
        raw.enter_pipeline_mode()

    # --- State -----------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return not self._closed and not self._expected and self._raw.status != _BAD

    @property
    def status(self) -> int:
        """Of the transaction, as of the last answer."""
        return self._raw.transaction_status

    def looks_alive(self) -> bool:
        """Whether nothing has come from the server unasked: a server that goes says so, or its
        kernel does, before anybody has sent anything. One system call."""
        if not self.usable:
            return False
        if not self._poll.poll(0):
            return True
        try:
            self._raw.consume_input()
        except DriverError:
            return False
        # A notice is no reason; the end of the stream is only seen by a second look.
        return self._raw.status != _BAD and not self._poll.poll(0)

    def parameter(self, name: str) -> str:
        """A setting the server reports by itself, such as ``in_hot_standby``."""
        return (self._raw.parameter_status(name.encode()) or b"").decode()

    @property
    def version(self) -> int:
        """``150004`` for 15.4."""
        return self._raw.server_version

    def close(self) -> None:
        """Close the socket. A task that waits for it gets :class:`LostError`. Harmless when
        repeated."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._descriptor)
            self._raw.finish()

    # --- Exchange --------------------------------------------------------------------------------

    async def exchange(
        self, steps: Sequence[Step], deadline: float, mode: Mode | None = None
    ) -> Answer:
        """Send *steps* and read every answer. With a *mode*, the session is in it before.

        A failure of the server is in :attr:`Answer.error`. When the deadline passes, or the caller
        is cancelled, the statement is cancelled on the server, and what became of it is read.

        Raises:
          OverdueError: *deadline* passed. Nothing was done.
          trio.Cancelled: the caller was cancelled, and the statement did not succeed.
          LostError: the connection broke; it is closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if deadline <= trio.current_time():
            raise OverdueError
        answer = self._answer = Answer()
        self._send(steps, mode)
        self.busy_since = trio.current_time()
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                await self._flush()
                await self._read(answer)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._interrupt(answer)
            if answer.error is not None:
                raise
            # It was done before the cancellation got there; the next checkpoint raises that. (A
            # statement commits at the synchronisation point after it, which was read.)
        if scope.cancelled_caught:
            with trio.CancelScope(shield=True):
                await self._interrupt(answer)
            if answer.error is not None and sqlstate(answer.error) == CANCELLED:
                raise OverdueError
        elif answer.overflow:
            with trio.CancelScope(shield=True):
                await self._interrupt(answer)
            # It was this cancellation that made it fail.
            answer.overflow, answer.error = True, None
        self.busy_since = None
        if answer.error is not None:
            self._look_at_failure(answer)
        return answer

    def _look_at_failure(self, answer: Answer) -> None:
        error = answer.error
        assert error is not None
        if is_fatal(error):
            self.close()
            raise LostError("the server ended the session", error)
        if sqlstate(error) in STALE_STATEMENT and self._prepared:
            # The next use prepares anew, under another name. What made the server forget them
            # (DISCARD ALL) undid the session's mode too.
            answer.stale = True
            self._prepared.clear()
            self._uses.clear()
            self.mode = None

    def _send(self, steps: Sequence[Step], mode: Mode | None) -> None:
        raw = self._raw
        try:
            if mode is not None and mode != self.mode:
                self._send_settings(mode)
            for step in steps:
                self._send_one(step)
                if step.sync:
                    raw.pipeline_sync()
                    self._expected.append(_Expected(-1))
        except DriverError as error:
            self.close()
            raise LostError(str(error), sent=False) from error

    def _send_settings(self, mode: Mode) -> None:
        for sql in mode.differences(self.mode):
            self._send_one(Step(Bound(sql)))
            self._expected[-1].setting = True
            # Each for itself: a mode is for the next transaction, and this is its end.
            self._raw.pipeline_sync()
            self._expected.append(_Expected(-1))
        self.mode = mode

    def _send_one(self, step: Step) -> None:
        raw, bound = self._raw, step.bound
        expected = _Expected(step.rows, step.first)
        expected.optional = step.optional
        if bound.oids or step.rows:
            key = (bound.sql, bound.oids)
            name = self._prepared.get(key)
            if name is None:
                uses = self._uses.get(key, 0) + 1
                if uses >= PREPARE_AFTER:
                    name = self._prepare(key)
                else:
                    self._uses[key] = uses
            if name is not None:
                raw.send_query_prepared(name, bound.values, bound.formats, 0)
                self._expected.append(expected)
                return
        raw.send_query_params(bound.sql, bound.values, bound.oids, bound.formats, 0)
        self._expected.append(expected)

    def _prepare(self, key: _Key) -> bytes:
        name = b"n%s_%d" % (self._stem, next(self._names))
        if len(self._prepared) >= MOST_PREPARED:
            # The oldest. It is used again at the cost of one more preparation.
            oldest = next(iter(self._prepared))
            self._raw.send_close_prepared(self._prepared.pop(oldest))
            self._expected.append(_Expected(0))
        if len(self._uses) >= 4 * MOST_PREPARED:
            self._uses.clear()
        self._raw.send_prepare(name, *key)
        self._expected.append(_Expected(0, False, key, name))
        return name

    async def _flush(self) -> None:
        try:
            while self._raw.flush():
                await self._wait_either()
                if self._poll.poll(0):
                    # What the server has to say first must not keep it from listening.
                    self._raw.consume_input()
        except (DriverError, trio.ClosedResourceError) as error:
            self._lose(str(error), error)

    async def _wait_either(self) -> None:
        """Until the socket takes or has something. Only where its buffer is full."""

        async def wait(ready: Callable[[int], Awaitable[None]]) -> None:
            # Closed meanwhile: the next use of the connection says so.
            with contextlib.suppress(trio.ClosedResourceError):
                await ready(self._descriptor)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, trio.lowlevel.wait_readable)
                await wait(trio.lowlevel.wait_writable)
        except BaseExceptionGroup:
            # A cancellation comes out as one of each task in a group, which nobody looks for.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise

    async def _read(self, answer: Answer) -> None:
        """Until nothing is expected any more. May be cancelled, and called again."""
        raw, expected = self._raw, self._expected
        try:
            while expected:
                head = expected[0]
                if not head.started:
                    head.started = True
                    # What comes after a failure has no rows, and takes no mode.
                    if head.rows > 0 and raw.pipeline_status != _FAILED:
                        raw.set_chunked_rows_mode(min(head.rows + 1, CHUNK_ROWS))
                while raw.is_busy():
                    await trio.lowlevel.wait_readable(self._descriptor)
                    raw.consume_input()
                    self.busy_since = trio.current_time()
                result = raw.get_result()
                if result is None:
                    # The end of one statement's answers. Between a synchronisation point and what
                    # follows it there is none.
                    if raw.status == _BAD:
                        self._lose("the connection is closed")
                    if head.rows >= 0:
                        expected.popleft()
                    continue
                status = result.status
                if status == _SYNC:
                    expected.popleft()
                else:
                    self._take(head, status, result, answer)
                    if answer.overflow:
                        return
        except (DriverError, trio.ClosedResourceError, OSError) as error:
            self._lose(str(error), error)

    def _take(self, head: _Expected, status: int, result: pq.abc.PGresult, answer: Answer) -> None:
        if head.setting:
            if status != _OK:
                self.mode = None
            return
        if status in (_TUPLES, _CHUNK):
            count = result.ntuples
            if count and head.rows > 0:
                room = head.rows - head.kept
                if room > 0:
                    self._transformer.set_pgresult(result)
                    rows = self._transformer.load_rows(0, min(count, room), tuple)
                    head.kept += len(rows)
                    answer.rows += rows
                answer.overflow = count > room and not head.first
            if status == _TUPLES:
                self._note_tag(result, answer)
        elif status == _OK:
            if head.key is None:
                self._note_tag(result, answer)
            else:
                self._prepared[head.key] = head.name
                self._uses.pop(head.key, None)
        elif head.optional and status in _FAILURES and not is_fatal(result):
            answer.rows.append(())
        elif status != _ABORTED and answer.error is None:
            answer.error = result
            if status not in _FAILURES:
                self.close()
                raise DatabaseMisuseError(
                    "a statement speaks another protocol",
                    why="COPY was sent as a plain statement",
                    remedy="insert rows with execute_many",
                )

    def _note_warning(self, result: pq.abc.PGresult) -> None:
        """Called by libpq. A commit that is cancelled while it waits for a standby succeeds, and warns."""
        if says_unreplicated(result):
            self._answer.unreplicated = True

    def _note_tag(self, result: pq.abc.PGresult, answer: Answer) -> None:
        answer.tag = tag = result.command_status or b""
        if tag.startswith(_CHANGES):
            answer.changed += result.command_tuples or 0

    def _lose(self, why: str, cause: BaseException | None = None) -> None:
        """Close, and raise with what the server may have said last."""
        last = self._answer.error
        if not self._closed:
            with contextlib.suppress(DriverError):
                # What has come already, and no more: otherwise libpq would wait, and with it the
                # whole process.
                while not self._raw.is_busy():
                    result = self._raw.get_result()
                    if result is None:
                        break
                    if result.status == pq.ExecStatus.FATAL_ERROR and sqlstate(result):
                        last = result
                        break
        self._expected.clear()
        self.close()
        raise LostError(why, last) from cause

    # --- Interruption ----------------------------------------------------------------------------

    async def _interrupt(self, answer: Answer) -> None:
        """Cancel on the server and read what became of it.

        Raises:
          LostError: that took too long, or the connection broke.
        """
        with trio.move_on_after(CANCEL_GRACE):
            await self._flush()
            await self._ask_to_cancel()
            overflowed, answer.overflow = answer.overflow, False
            while self._expected:
                # It may have been done already: then its answer is taken like any other, whole. Of
                # more than the limit nothing is kept.
                await self._read(answer)
                overflowed, answer.overflow = overflowed or answer.overflow, False
            answer.overflow = overflowed
            return
        self._lose("the server did not let go of a statement that was cancelled")

    async def _ask_to_cancel(self) -> None:
        """By a connection of its own, as the protocol wants it, with the same TLS. Where there is
        nothing to cancel any more the server ignores it; it has done so when this returns."""
        if not self._expected:
            return
        try:
            cancel = self._raw.cancel_conn()
            cancel.start()
            while (status := cancel.poll()) != pq.PollingStatus.OK:
                if status == pq.PollingStatus.READING:
                    await trio.lowlevel.wait_readable(cancel.socket)
                elif status == pq.PollingStatus.WRITING:
                    await trio.lowlevel.wait_writable(cancel.socket)
                else:
                    self._lose("the server takes no cancellation")
            cancel.finish()
        except (DriverError, OSError) as error:
            self._lose(str(error), error)

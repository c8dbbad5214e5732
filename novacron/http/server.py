"""Serving an ASGI application on Trio within limits, and stopping in two steps."""

from __future__ import annotations

import errno
import logging
import ssl
from typing import TYPE_CHECKING

import trio

from novacron import observe
from novacron.record import Record

if TYPE_CHECKING:
    from novacron.http.asgi import AsgiApp, Message, Receive, Scope, Send
    from novacron.http.connection import Connection, Shared

log = logging.getLogger("novacron.http")
access_log = logging.getLogger("novacron.http.access")

_connections = observe.Gauge(
    "novacron_http_connections", "Open connections to an HTTP listener.", ("listener",)
)
_accepted = observe.Counter(
    "novacron_http_connections_accepted_total",
    "Connections an HTTP listener accepted.",
    ("listener",),
)
_failed = observe.Counter(
    "novacron_http_connections_failed_total",
    "Connections that ended in an error of ours.",
    ("listener",),
)

_requests = observe.Counter(
    "novacron_http_requests_total",
    "Requests answered, by status; none where the client left before an answer.",
    ("listener", "method", "status"),
)
_seconds = observe.Histogram(
    "novacron_http_request_seconds",
    "Time from a request's complete head to the end of its answer.",
    ("listener",),
)

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
"""Any other is labelled ``other``: the method is the client's word, and a label must be bounded."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Limits(Record):
    """What one client, and all together, may take. Timeouts in seconds."""

    max_connections: int = 1000
    """Past it new connections wait in the kernel's backlog."""
    head_timeout: float = 10.0
    """For a request's head to be complete, from the connection's start or the answer before."""
    handshake_timeout: float = 10.0
    write_timeout: float = 30.0
    """For the client to take what one write hands it."""
    max_head_bytes: int = 16 * 1024
    """Request line and headers: twice what nginx and Apache take by default."""


class HttpServer:
    """An HTTP/1.1 server for one listener.

    ``app`` may be exchanged at any time: a request is answered by the one that is there when its
    head is complete.
    """

    def __init__(
        self,
        name: str,
        app: AsgiApp,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.app = app
        self._limits = limits
        self._tls = tls
        self._shared: Shared | None = None
        self._listener: trio.SocketListener | None = None
        self._accepting: trio.CancelScope | None = None
        self._live: set[Connection] = set()
        self._all_closed = trio.Event()
        self._all_closed.set()

    @property
    def connections(self) -> int:
        return len(self._live)

    async def serve(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and answer until :meth:`drain` has emptied the server, or cancelled. Takes over
        and closes *listener*. Started once it answers."""
        self._listener = listener
        try:
            # Hypercorn is imported off the loop: everything else in the node goes on booting.
            await trio.to_thread.run_sync(prefetch, abandon_on_cancel=True)
            from novacron.http.connection import Shared

            self._shared = Shared(self.name, self._limits)
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as self._accepting:
                    task_status.started()
                    await self._accept(listener, nursery, self._shared)
        finally:
            listener.socket.close()

    async def _accept(
        self,
        listener: trio.SocketListener,
        nursery: trio.Nursery,
        shared: Shared,
    ) -> None:
        from novacron.http.connection import Connection

        slots = trio.Semaphore(self._limits.max_connections)
        while True:
            await slots.acquire()
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as exc:
                slots.release()
                if exc.errno not in _EXHAUSTED:
                    raise
                log.error(
                    "cannot accept a connection: %s; trying again",
                    exc.strerror,
                    extra={"listener": self.name},
                )
                # Descriptors come back when connections close, which the loop must get time for.
                await trio.sleep(0.1)
                continue
            connection = Connection(self._answer, shared, stream, self._tls)
            self._live.add(connection)
            if self._all_closed.is_set():
                self._all_closed = trio.Event()
            _accepted.inc(self.name)
            _connections.set(len(self._live), self.name)
            nursery.start_soon(self._converse, connection, slots)

    async def _converse(self, connection: Connection, slots: trio.Semaphore) -> None:
        try:
            await connection.run()
        except BaseException as exc:
            # One connection's failure is not the server's; cancellation passes.
            ours, other = (
                exc.split(Exception)
                if isinstance(exc, BaseExceptionGroup)
                else (exc, None)
                if isinstance(exc, Exception)
                else (None, exc)
            )
            if ours is not None:
                _failed.inc(self.name)
                log.error("a connection failed", exc_info=ours, extra={"listener": self.name})
            if other is not None:
                raise other from None
        finally:
            connection.abort()
            self._live.discard(connection)
            slots.release()
            _connections.set(len(self._live), self.name)
            if not self._live:
                self._all_closed.set()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        status: int | None = None

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = trio.current_time()
        try:
            await self.app(scope, receive, noting)
        finally:
            self._note(scope, status, trio.current_time() - started)

    def _note(self, scope: Scope, status: int | None, seconds: float) -> None:
        method = scope.get("method", "")
        _requests.inc(
            self.name, method if method in _METHODS else "other", str(status) if status else "none"
        )
        _seconds.observe(seconds, self.name)
        # Reads are the polling of probes and dashboards: at info they would bury the changes.
        level = logging.DEBUG if method in _SAFE_METHODS else logging.INFO
        if access_log.isEnabledFor(level):
            client = scope.get("client")
            access_log.log(
                level,
                "%s %s",
                method,
                scope["path"],
                extra={
                    "listener": self.name,
                    "method": method,
                    # Without the query: a client may put there what it should not.
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(seconds, 6),
                    "source": client[0] if client else "",
                },
            )

    async def drain(self) -> None:
        """Stop accepting, close idle connections, and return when the last request is answered.

        Cancel it to stop waiting; :meth:`abort` then ends what is left.
        """
        if self._accepting is not None:
            self._accepting.cancel()
        if self._listener is not None:
            # At once, so that a client is refused rather than left in a backlog nobody reads.
            self._listener.socket.close()
        if self._shared is not None:
            await self._shared.context.terminated.set()
        for connection in list(self._live):
            if not connection.established:
                connection.abort()
        await self._all_closed.wait()

    def abort(self) -> None:
        """Close everything now, answered or not."""
        if self._accepting is not None:
            self._accepting.cancel()
        if self._listener is not None:
            self._listener.socket.close()
        for connection in list(self._live):
            connection.abort()


def prefetch() -> None:
    """Import what serving needs; any thread may call it, before or while a server starts."""
    import novacron.http.connection  # noqa: F401

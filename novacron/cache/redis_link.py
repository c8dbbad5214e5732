"""One connection to Redis. Only this and :mod:`novacron.cache.redis_errors` know coredis.

What is used of coredis is its connection and its RESP3 parser, not its client. The client waits for
one answer before it sends the next command of the set-up; its cache keeps what it read although it
was told meanwhile that it changed, and looks for a dead connection only every fifteen seconds
(ADR 0121). Commands of any number of tasks share the connection: Redis answers in the order it was
asked, so that an answer tells more than its content, see :meth:`Link.calls`.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio
import trio
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import ProtocolError, RedisError

from novacron.cache.redis_errors import KEY, causes_of, mapped, read_only
from novacron.cache.redis_language import Word, Words
from novacron.cache.store import (
    CacheAwayError,
    CacheFrozenError,
    CacheFullError,
    CacheRefusedError,
    CacheUnavailableError,
)
from novacron.record import Record

MOST_IN_FLIGHT: Final = 4096
"""Calls that may wait for an answer at once. More are refused: nothing here queues without bound."""

_CLOSING: Final = (anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What a connection of coredis raises for a command while it is being closed, which over TLS takes a
while."""

_KINDS: Final = b"+-:$*_#,(!=%~>|"
"""What an answer can begin with."""

# It logs each failed attempt with its traceback, and raises it as well; we say it once.
logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)


now: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds on a clock that goes on while the machine sleeps: what others change then makes values here
as old as what they change while it is awake."""


class Target(Record):
    """Where the server is, and how it is talked to."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    context: ssl.SSLContext | None = None
    """None: in the clear."""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Connection(TCPConnection):
    """Sends the set-up behind HELLO without waiting, and passes pushes on in the order they arrived,
    before anybody who waits for an answer runs."""

    def __init__(self, target: Target, set_up: Sequence[Words]) -> None:
        super().__init__(
            TCPLocation(target.host, target.port),
            ssl_context=target.context,
            username=target.user,
            password=target.password,
            db=None,
        )
        self._set_up_words = set_up
        self.set_up: list[Any] = []
        self.on_push: Callable[[list[Any]], None] = lambda message: None
        self.on_stray: Callable[[Any], None] = lambda reply: None

    def create_request(self, command: bytes, *args: Any, **options: Any) -> Any:
        request = super().create_request(command, *args, **options)
        if command == b"HELLO":
            self.set_up = [request]
            for words in self._set_up_words:
                if words[0] == b"SUBSCRIBE":
                    # Answered by a push alone.
                    self.send_command(*_encoded(words))
                else:
                    self.set_up.append(super().create_request(*_encoded(words)))
        return request

    def _data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser.bytes_read == parser.bytes_written and data[0] not in _KINDS:
            # The parser would wait for the end of this line, which may never come.
            raise ProtocolError("an answer begins with no type of RESP3")
        super()._data_received(data)
        with contextlib.suppress(anyio.WouldBlock):
            while True:
                self.on_push(self._push_message_buffer_out.receive_nowait())
        with contextlib.suppress(anyio.WouldBlock):
            while True:
                self.on_stray(self._streamed_message_buffer_out.receive_nowait())

    def refusal(self, error: Exception) -> BaseException:
        """*error*, or what the server said before it closed."""
        said: BaseException | None = self.set_up[0]._exc if self.set_up else None
        return error if said is None or said in causes_of(error) else said

    def discard(self) -> None:
        """Close what coredis leaves open where the connection could not be made."""
        for stream in (
            self._write_buffer_in,
            self._write_buffer_out,
            self._push_message_buffer_in,
            self._push_message_buffer_out,
            self._streamed_message_buffer_in,
            self._streamed_message_buffer_out,
        ):
            stream.close()


def _encoded(words: Words) -> tuple[bytes, *tuple[Word, ...]]:
    command = words[0]
    assert isinstance(command, bytes)
    return command, *words[1:]


class Link:
    """A connection that is ready for use, from :meth:`open` until :attr:`closed` is set.

    Args:
      set_up: commands sent behind HELLO, in the same round trip.
      on_push: called at once with every push message of the server, before any answer that came
        after it reaches who asked; must not raise.
      on_proof: called with the time (:func:`now`) a call was sent at, when it was answered: every
        push that the server had for this connection before it came to that call has been passed on.
    """

    def __init__(
        self,
        target: Target,
        *,
        set_up: Sequence[Words] = (),
        on_push: Callable[[Link, list[Any]], None] = lambda link, message: None,
        on_proof: Callable[[Link, float], None] = lambda link, sent: None,
    ) -> None:
        self.target = target
        self.closed = trio.Event()
        self.error: CacheUnavailableError | None = None
        """Why it ended, or could not be opened."""
        self.client_id = 0
        """The server's number for this connection; so is :attr:`peer` its name for this end."""
        self.peer = ""
        self._on_push = on_push
        self._on_proof = on_proof
        self.answers: dict[Words, Any] = {}
        """To the commands of the set-up."""
        self._set_up = [words for words in set_up if words[0] != b"SUBSCRIBE"]
        self._subscriptions = sum(words[0] == b"SUBSCRIBE" for words in set_up)
        self._connection = _Connection(target, set_up)
        self._connection.on_push = self._pushed
        self._connection.on_stray = self._strayed
        self._scope = trio.CancelScope()
        self._ready = trio.Event()
        self._subscribed = trio.Event()
        self._in_flight = 0

    async def open(self, nursery: trio.Nursery, *, within: float) -> None:
        """Connect, within *within* seconds; the connection lives in *nursery*, which it never fails.

        Raises:
          CacheUnavailableError: it could not be made; the class tells why.
        """
        nursery.start_soon(self._run)
        try:
            with trio.move_on_after(within) as scope:
                await self._ready.wait()
                if self.error is None:
                    await self._take_answers()
        except BaseException:
            self.close()
            raise
        if scope.cancelled_caught:
            self.close(
                CacheAwayError(
                    f"cannot use Redis at {self.target.address}",
                    why=f"it was not ready for use within {within:g} s",
                    remedy="see whether it runs, expects TLS as set here, and what holds it up",
                    key=f"{KEY}.connect_timeout",
                )
            )
        if self.error is not None:
            raise self.error

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._connection.run(task_status=_Status(self._ready))
        except Exception as error:
            self.error = self.error or mapped(self._connection.refusal(error), self.target.address)
        finally:
            self.error = self.error or CacheAwayError(
                f"the connection to Redis at {self.target.address} is lost",
                why=_why(self._connection),
                remedy="see whether the server runs; the node connects again by itself",
                key=f"{KEY}.address",
            )
            self._connection.discard()
            self._ready.set()
            self.closed.set()

    async def _take_answers(self) -> None:
        hello, *others = self._connection.set_up
        try:
            greeting = await hello
            answers = [await request for request in others]
            if self._subscriptions:
                await self._subscribed.wait()
        except (RedisError, TimeoutError) as error:
            self.close(mapped(error, self.target.address))
            return
        if greeting.get(b"role") != b"master":
            self.close(read_only(self.target.address))
            return
        self.answers = dict(zip(self._set_up, answers, strict=True))
        self.client_id = int(greeting[b"id"])
        for answer in answers:
            if isinstance(answer, bytes) and answer.startswith(b"id="):
                fields = dict(
                    field.split("=", 1) for field in answer.decode().split() if "=" in field
                )
                self.peer = fields.get("addr", "")

    def close(self, error: CacheUnavailableError | None = None) -> None:
        """End the connection at once; *error* is why. Harmless when repeated."""
        self.error = self.error or error
        self._scope.cancel()

    async def call(self, *words: Word, within: float) -> Any:
        """One command's answer; see :meth:`calls`."""
        return (await self.calls(words, within=within))[0]

    async def calls(self, *commands: Words, within: float) -> list[Any]:
        """The answers to *commands*, sent at once, within *within* seconds.

        A caller that gives up leaves the rest in order: its commands are executed, their answers
        dropped.

        Raises:
          CacheRefusedError, CacheFullError, CacheFrozenError: the server refused one of them.
          CacheUnavailableError: any other, and the connection is closed, unless it was the time:
            a CacheAwayError leaves it open when it is only slow.
        """
        if self._in_flight >= MOST_IN_FLIGHT:
            raise CacheRefusedError(
                f"Redis at {self.target.address} is not asked",
                why=f"{self._in_flight} calls wait for its answer already",
            )
        sent = now()
        self._in_flight += 1
        try:
            with trio.move_on_after(within) as scope:
                # All before the first wait, so that they travel together.
                requests = [self._connection.create_request(*_encoded(words)) for words in commands]
                answers = [await request for request in requests]
        except (RedisError, TimeoutError, *_CLOSING) as error:
            raise self._failed(error) from error
        finally:
            self._in_flight -= 1
        if scope.cancelled_caught:
            raise CacheAwayError(
                f"Redis at {self.target.address} does not answer",
                why=f"a call took more than {within:g} s",
                remedy="see what keeps it busy (SLOWLOG, INFO), or allow it longer",
                key=f"{KEY}.timeout",
            )
        self._on_proof(self, sent)
        return answers

    def post(self, *words: Word) -> None:
        """Send a command whose answer nobody needs; lost with the connection."""
        with contextlib.suppress(RedisError, *_CLOSING):
            self._connection.create_request(*_encoded(words))

    def _failed(self, error: Exception) -> CacheUnavailableError:
        found = mapped(error, self.target.address)
        if not isinstance(found, CacheRefusedError | CacheFullError | CacheFrozenError):
            # Either it is closed already, or all that follows would fail like this.
            self.close(found)
        return found

    def _pushed(self, message: list[Any]) -> None:
        if message and message[0] == b"subscribe":
            self._subscriptions -= 1
            if self._subscriptions <= 0:
                self._subscribed.set()
            return
        self._on_push(self, message)

    def _strayed(self, reply: Any) -> None:
        """An answer to nothing that was asked: SUBSCRIBE was refused, or this is not Redis."""
        error = reply if isinstance(reply, RedisError) else ProtocolError("an answer too many")
        self.close(mapped(error, self.target.address))


class _Status:
    """What coredis calls when the connection is ready."""

    def __init__(self, ready: trio.Event) -> None:
        self._ready = ready

    def started(self, value: object = None) -> None:
        self._ready.set()


def _why(connection: _Connection) -> str:
    error = connection._last_error
    if error is None:
        return "it was closed"
    innermost = next((one for one in causes_of(error) if isinstance(one, OSError)), None)
    return (innermost.strerror or str(innermost)) if innermost else "the server closed it"

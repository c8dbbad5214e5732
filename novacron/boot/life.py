"""One life of a component: from entering it to having shut it down, exactly once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from novacron.errors import BootError, LimitError, TransientError

FORCED_STOP = 1.0
"""Seconds: enough to close a socket or a file, too short to wait for a peer."""


class StartTimeoutError(BootError, TransientError):
    code = "boot.start_timeout"


class StopTimeoutError(BootError, LimitError):
    code = "boot.stop_timeout"


Start = Callable[[trio.Nursery], Awaitable[None]]
Stop = Callable[[], Awaitable[None]]


class Life:
    """Runs *start* under a deadline, keeps the component's nursery open, and runs *stop* once.

    *stop* runs whatever became of *start*, shielded, for at most *stop_timeout* seconds, while the
    nursery is still open; then the nursery is cancelled. Afterwards ``error`` tells why the life
    ended (None: it was asked to), ``was_ready`` whether it ever served, ``stop_error`` what went
    wrong in stopping.
    """

    __slots__ = (
        "_start",
        "_start_scope",
        "_stop",
        "_stop_scope",
        "_stop_timeout",
        "cancel_reason",
        "error",
        "name",
        "stop_error",
        "stop_requested",
        "stopping",
        "was_ready",
    )

    def __init__(self, name: str, start: Start, stop: Stop, stop_timeout: float) -> None:
        self.name = name
        self.was_ready = False
        self.stopping = False
        self.error: BaseException | None = None
        self.stop_error: BaseException | None = None
        self.cancel_reason: Exception | None = None
        self.stop_requested = trio.Event()
        self._start = start
        self._stop = stop
        self._stop_timeout = stop_timeout
        self._start_scope = trio.CancelScope()
        self._stop_scope: trio.CancelScope | None = None

    async def run(self, deadline: float, on_ready: Callable[[], None]) -> None:
        """*deadline* is absolute, in Trio's clock. Only cancellation from outside raises."""
        began = trio.current_time()
        self._start_scope.deadline = deadline
        try:
            async with trio.open_nursery() as nursery:
                started = False
                try:
                    with self._start_scope:
                        await self._start(nursery)
                        started = True
                    if started:
                        self.was_ready = True
                        on_ready()
                        await self.stop_requested.wait()
                    else:
                        self.error = self.cancel_reason or StartTimeoutError(
                            f"{self.name} did not start in time",
                            why=f"its deadline passed after {trio.current_time() - began:.3f} s",
                            remedy="see what it waits for in the log, or allow it longer",
                            key=f"boot.start_timeout.{self.name}",
                        )
                except Exception as exc:
                    self.error = exc
                finally:
                    await self._shut_down()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The component's own tasks failed; cancellation from outside stays what it is.
            failures, rest = group.split(Exception)
            if failures is not None and self.error is None:
                self.error = sole_cause(failures)
            if rest is not None:
                raise rest from None

    async def _shut_down(self) -> None:
        self.stopping = True
        with trio.CancelScope(
            shield=True, deadline=trio.current_time() + self._stop_timeout
        ) as self._stop_scope:
            try:
                await self._stop()
            except Exception as exc:
                self.stop_error = exc
        if self._stop_scope.cancelled_caught:
            self.stop_error = StopTimeoutError(
                f"{self.name} did not stop in {self._stop_timeout:g} s",
                why="its deadline passed, or the stop was forced",
                remedy="see what it waits for in the log",
            )

    def extend(self, deadline: float) -> None:
        """Move the start's deadline; moving it back is not an extension and does nothing."""
        self._start_scope.deadline = max(self._start_scope.deadline, deadline)

    def cancel_start(self, reason: Exception) -> None:
        """Give up a start that has not finished; *reason* becomes ``error``."""
        self.cancel_reason = self.cancel_reason or reason
        self._start_scope.cancel()

    def fail(self, error: Exception) -> None:
        """End a life that is ready because of something found from outside, such as bad health."""
        if self.error is None and not self.stop_requested.is_set():
            self.error = error
        self.stop_requested.set()

    def force(self) -> None:
        """Cut short a stop under way, and leave a later one :data:`FORCED_STOP` seconds."""
        if self._stop_scope is not None:
            self._stop_scope.cancel()
        self._stop_timeout = min(self._stop_timeout, FORCED_STOP)


def sole_cause(error: BaseException) -> BaseException:
    """The one exception inside nested groups, or the group itself when there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error

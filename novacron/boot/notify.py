"""Tells systemd how the node does: the sd_notify(3) datagram protocol, without libsystemd.

The boot must not fail, or wait, because the service manager is deaf: every send is non-blocking, an
error is logged once and forgotten. The two messages whose loss would cost the node its life
(``READY``, ``STOPPING``) are kept and sent again from :meth:`Notifier.run` when the manager's
socket was full.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Final

from novacron.boot import events

if TYPE_CHECKING:
    import socket

_log = logging.getLogger("novacron.boot.notify")

_PENDING_LIMIT: Final = 8
"""Messages kept while the socket is full; the oldest goes first, its news being stale."""
_RESEND_SECONDS: Final = 0.1
_PROGRESS_EXTENSION: Final = 10.0
"""Seconds a sign of life buys: twice what ``Progress.advance`` grants an attempt, because here a
late datagram would cost the whole node."""
_FULL: Final = (BlockingIOError, InterruptedError)


class Notifier:
    """Speaks to one service manager; silent when there is none. :meth:`close` it."""

    def __init__(
        self, address: str | None, *, watchdog_seconds: float | None = None, pid: int | None = None
    ) -> None:
        """*address*: ``NOTIFY_SOCKET``, a path or an abstract name (``@…``); None is no manager.
        *watchdog_seconds*: how long systemd waits for a sign of life before it kills us."""
        self._address: bytes | str | None = None
        if address is not None:
            if address[:1] == "@":
                self._address = b"\0" + os.fsencode(address[1:])
            elif address[:1] == "/":
                self._address = address
            else:
                _log.warning(
                    "NOTIFY_SOCKET is neither a path nor an abstract name, systemd hears nothing",
                    extra={"notify_socket": address},
                )
        self._watchdog_seconds = watchdog_seconds if self._address is not None else None
        self._pid: Final = pid if pid is not None else os.getpid()
        self._socket: socket.socket | None = None
        self._pending: list[bytes] = []
        self._ready_status = ""
        self._complained = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> Notifier:
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` **and remove them**: a
        child process that inherits them could speak in the node's name."""
        source = os.environ if environment is None else environment
        address = source.pop("NOTIFY_SOCKET", None) or None
        watchdog = source.pop("WATCHDOG_USEC", None)
        owner = source.pop("WATCHDOG_PID", None)
        return cls(address, watchdog_seconds=watchdog_seconds(watchdog, owner, os.getpid()))

    @property
    def enabled(self) -> bool:
        """Whether there is a service manager to talk to."""
        return self._address is not None

    @property
    def ping_interval(self) -> float | None:
        """Seconds between two signs of life: half of what the manager waits, as it asks for."""
        return None if self._watchdog_seconds is None else self._watchdog_seconds / 2

    def ready(self, status: str = "") -> None:
        self._send("READY=1", status=status, keep=True)

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(status=status)

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status=status, keep=True)

    def reloading(self) -> None:
        """A reload has begun; :meth:`ready` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", keep=True)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for *seconds* from now for the start or stop under way."""
        self._send(f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1e6)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def main_pid(self) -> None:
        """Say which process is the node, where a wrapper started it."""
        self._send(f"MAINPID={self._pid}", keep=True)

    async def run(self, alive: Callable[[], bool]) -> None:
        """Ping the watchdog while *alive* says so, and resend what found the socket full.

        Returns at once without a manager; otherwise runs until cancelled. A loop that no longer
        turns, or a node that is not alive, misses its ping, and systemd restarts it.
        """
        if not self.enabled:
            return
        import trio

        next_ping = trio.current_time()
        while True:
            interval = self.ping_interval
            if interval is not None and trio.current_time() >= next_ping:
                if alive():
                    self.watchdog()
                next_ping = trio.current_time() + interval
            self._flush()
            wake = math.inf if interval is None else next_ping
            # Also when nothing is pending now: an event may leave something at any moment.
            await trio.sleep_until(min(wake, trio.current_time() + self._patience()))

    def listen(self, event: events.Event) -> None:
        """A listener for the engine: turns what happens into messages."""
        if not self.enabled:
            return
        match event:
            case events.PhaseStarted():
                self._send(
                    f"EXTEND_TIMEOUT_USEC={math.ceil(max(0.0, event.deadline - event.at) * 1e6)}",
                    status=f"Booting: {event.phase}",
                )
            case events.ComponentProgress():
                self._send(
                    f"EXTEND_TIMEOUT_USEC={math.ceil(_PROGRESS_EXTENSION * 1e6)}",
                    status=f"{self._activity}: {event.name}: {event.message}",
                )
            case events.ComponentRetry():
                self.status(
                    f"{self._activity}: {event.name} failed, next attempt in {event.delay:.1f} s"
                )
            case events.NodeReady():
                self._ready_status = _ready_status(event)
                self.ready(self._ready_status)
            case events.ComponentLost():
                self.status(f"Degraded: {event.name} is down")
            case events.ComponentRestored():
                self.status(f"{event.name} is back. {self._ready_status}")
            case events.BootFailed():
                self.status(f"Boot failed: {event.failure.get('what', '')}")
            case events.NodeStopping():
                self.stopping(f"Stopping: {event.reason}")
            case events.NodeStopped():
                self.status(f"Stopped with exit code {event.code}")

    @property
    def _activity(self) -> str:
        return "Restoring" if self._ready_status else "Booting"

    def close(self) -> None:
        if self._socket is not None:
            self._flush()
            self._socket.close()
            self._socket = None

    def _patience(self) -> float:
        return _RESEND_SECONDS if self._pending else 1.0

    def _send(self, *lines: str, status: str = "", keep: bool = False) -> None:
        if self._address is None:
            return
        if status:
            lines = (*lines, "STATUS=" + " ".join(status.split()))
        self._flush()
        datagram = "\n".join(lines).encode(errors="replace")
        # Nothing overtakes a kept message: STOPPING before READY would be a lie.
        if (self._pending or not self._try(datagram)) and keep:
            self._pending = [*self._pending, datagram][-_PENDING_LIMIT:]

    def _flush(self) -> None:
        while self._pending and self._try(self._pending[0]):
            del self._pending[0]

    def _try(self, datagram: bytes) -> bool:
        """Send, or say that the socket is full. Any other trouble counts as sent: see above."""
        import socket

        assert self._address is not None
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto(datagram, self._address)
        except _FULL:
            return False
        except OSError as exc:
            if not self._complained:
                self._complained = True
                _log.warning("systemd cannot be notified", extra={"why": str(exc)})
        return True


def watchdog_seconds(usec: str | None, owner: str | None, pid: int) -> float | None:
    """What ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` ask of process *pid*; None is nothing."""
    if usec is None or not usec.isascii() or not usec.isdecimal() or int(usec) == 0:
        return None
    if owner is not None and owner != str(pid):
        return None
    return int(usec) / 1e6


def _ready_status(event: events.NodeReady) -> str:
    words = f"Ready in {event.seconds:.3f} s"
    if event.degraded:
        words += f", degraded: {', '.join(str(entry['name']) for entry in event.degraded)}"
    if event.addresses:
        served = ", ".join(f"{kind} {address}" for kind, address in event.addresses.items())
        words += f"; {served}"
    return words

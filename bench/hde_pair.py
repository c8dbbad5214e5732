"""Two processes that stand for one link of the encoding bench, and what one transfer took."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.amst_pair import START_TIMEOUT, Worker, threads
from bench.harness import BenchError
from bench.hde_data import Dataset
from bench.hde_link import Place

_MODULE = "bench.hde_worker"


@dataclass(frozen=True, slots=True)
class Way:
    """How a data set is encoded."""

    name: str
    codec: str
    """``auto`` is what a node does by default; the others are the only codec tried."""
    level: int = 1
    uses_base: bool = True
    """Where the receiver holds one."""


ADAPTIVE = Way("adaptive", "auto")
FIXED = (Way("raw", "raw"), Way("lz4", "lz4"), Way("zstd1", "zstd", 1), Way("zstd3", "zstd", 3))
ALONE = Way("zstd1_alone", "zstd", 1, uses_base=False)
"""Of data with a base: as if there was none."""


@dataclass(frozen=True, slots=True)
class Moved:
    seconds: float
    """From the start of sending until everything was checked, written and acknowledged."""
    wire_bytes: int
    """What TCP carried to the receiver, without its own headers."""
    cpu_seconds: float
    """Of both ends, user and system."""
    coding: dict[str, Any] | None = None


class Ends:
    """The two processes at the ends of *place*; made by :func:`paired`, used from one thread."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.congestion = ""
        """What the sender's connections used the last time."""
        self._stack = contextlib.ExitStack()
        self._start()

    def _start(self) -> None:
        place = self.place
        common = {
            "host": place.host,
            "threads": threads(),
            "same_host": place.kind.rate_bps is None,
        }
        with contextlib.ExitStack() as stack:
            self._receiver = stack.enter_context(Worker("receiver", place.prefix(place.b), _MODULE))
            self._sender = stack.enter_context(Worker("sender", place.prefix(place.a), _MODULE))
            self._receiver.ask("open", role="receiver", **common)
            self._sender.ask("open", role="sender", **common)
            self._port = self._receiver.answer(START_TIMEOUT)["port"]
            codecs = self._sender.answer(START_TIMEOUT)["codecs"]
            missing = {way.codec for way in FIXED} - set(codecs)
            if missing:
                raise BenchError(f"the library of {', '.join(sorted(missing))} is missing here")
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def reset(self) -> None:
        """After a failure: two fresh processes."""
        self._stack.close()
        self._start()

    def move(self, data: Dataset, way: Way, target: Path, timeout: float) -> Moved:
        """Over a new link, whose connections are made before the clock starts, into a new file; then
        compare what arrived.

        Raises:
          BenchError: it failed, took more than *timeout* seconds, or changed bytes.
        """
        keys: dict[str, Any] = {"link": secrets.token_hex(16), "secret": secrets.token_hex(32)}
        base = str(data.base) if data.base is not None and way.uses_base else None
        what: dict[str, Any] = {"size": data.size, "base": base}
        receiver, sender = self._receiver, self._sender
        receiver.do("link", **keys)
        sender.do("link", **keys)
        made = sender.do("connect", port=self._port, streams=self.place.kind.streams)
        self.congestion = made["congestion"]
        receiver.do("expect", path=str(target), **what)
        receiver.ask("finish", within=timeout)
        sender.ask(
            "send",
            path=str(data.source),
            sparse=data.sparse,
            codec=way.codec,
            level=way.level,
            within=timeout,
            **what,
        )
        sent = sender.answer(timeout + 1)
        received = receiver.answer(timeout + 1)
        same = receiver.do("compare", timeout, path=str(data.source))["same"]
        sender.do("close")
        receiver.do("close")
        if not same:
            raise BenchError(f"{way.name} changed bytes of {data.name}")
        return Moved(
            max(sent["ended"], received["ended"]) - sent["began"],
            sent["wire_bytes"],
            sent["cpu_seconds"] + received["cpu_seconds"],
            sent["coding"],
        )


@contextlib.contextmanager
def paired(place: Place) -> Iterator[Ends]:
    """Two fresh processes at the ends of *place*, killed at the end of the block.

    Raises:
      BenchError: one did not start.
    """
    ends = Ends(place)
    try:
        yield ends
    finally:
        ends.close()

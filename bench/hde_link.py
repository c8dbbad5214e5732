"""Where the encoding bench moves its data: two namespaces with a rate between them, or the loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.harness import BenchError
from bench.lab.netns import Lab, LabError, Namespace
from bench.lab.relay import wan

MIB = 1 << 20
_DELAY_MS = 1.0
"""One way. The relay, which makes it, costs a tenth of a core at 10 Mbit/s and a third at 100; at a
gigabit it would take the core that is to encode, so that a cable with a cap is used there."""
_QUEUE_SECONDS = 0.02
"""Of the cap's queue at a gigabit."""


@dataclass(frozen=True, slots=True)
class LinkKind:
    name: str
    rate_bps: float | None
    """None: what the loopback takes."""
    size: int
    """Bytes of a data set, so that sending it as it is takes some seconds at most."""
    phases_size: int
    delay_ms: float = 0.0
    streams: int = 4
    """What a node starts with in a datacenter, and for the loopback."""
    rounds: int = 1
    """At least so many, as chance has its part: little where the rate alone decides."""


KINDS = (
    LinkKind("10 Mbit/s", 10e6, 6 * MIB, 8 * MIB, delay_ms=_DELAY_MS),
    LinkKind("100 Mbit/s", 100e6, 48 * MIB, 64 * MIB, delay_ms=_DELAY_MS),
    LinkKind("1 Gbit/s", 1e9, 256 * MIB, 1024 * MIB, rounds=3),
    LinkKind("loopback", None, 256 * MIB, 1024 * MIB, streams=1, rounds=5),
)
SHORT = {"10m": KINDS[0], "100m": KINDS[1], "1g": KINDS[2], "loopback": KINDS[3]}
"""As an option names them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A link that stands: the receiver's address, and where both ends live; None is here."""

    kind: LinkKind
    host: str = "127.0.0.1"
    a: Namespace | None = field(default=None)
    b: Namespace | None = field(default=None)

    def prefix(self, end: Namespace | None) -> list[str]:
        return [] if end is None else end.command([])


@contextlib.contextmanager
def within(end: Namespace | None) -> Iterator[None]:
    """Sockets made in the block belong to *end*."""
    with contextlib.nullcontext() if end is None else end.entered():
        yield


@contextlib.contextmanager
def standing(kind: LinkKind) -> Iterator[Place]:
    """A link of *kind*, gone at the end of the block.

    Raises:
      BenchError: this process may not make one, or lacks what it needs; the text says what.
    """
    if kind.rate_bps is None:
        yield Place(kind)
        return
    with contextlib.ExitStack() as stack:
        try:
            place = _relayed(stack, kind) if kind.delay_ms else _cable(stack, kind)
        except LabError as exc:
            raise BenchError(str(exc)) from exc
        yield place


def _relayed(stack: contextlib.ExitStack, kind: LinkKind) -> Place:
    path = stack.enter_context(wan(delay_ms=kind.delay_ms, rate_bps=kind.rate_bps))
    return Place(kind, path.address_b, path.a, path.b)


def _cable(stack: contextlib.ExitStack, kind: LinkKind) -> Place:
    assert kind.rate_bps is not None
    lab = stack.enter_context(Lab())
    a, b = lab.namespace("a"), lab.namespace("b")
    cable = lab.veth(a, b)
    cable.shape(kind.rate_bps, queue_bytes=int(kind.rate_bps / 8 * _QUEUE_SECONDS))
    return Place(kind, cable.address_b, a, b)


def parse_kinds(words: str) -> tuple[LinkKind, ...]:
    """``10m,1g`` and so on.

    Raises:
      BenchError: it names another one.
    """
    found = []
    for word in words.split(","):
        kind = SHORT.get(word.strip().lower())
        if kind is None:
            raise BenchError(f"{word!r} is none of the links {', '.join(SHORT)}")
        found.append(kind)
    return tuple(found)

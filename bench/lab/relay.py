"""A wide-area path between two namespaces: the relay of `relay.c`, and what it is told.

    with wan(delay_ms=40, loss=0.001, rate_bps=100e6) as path:
        server = path.b.spawn(["iperf3", "-s"])
        path.relay.police(10e6, flows="1")
        path.relay.statistics().ab.queue_mean_ms

Everything here blocks, for some milliseconds at most, so that Trio's tests may call it directly.
Rates are bits of IP packets a second. The first TCP connection seen is flow 1, whichever end opens
it, the next one flow 2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, TypedDict, Unpack

from bench.lab.netns import Lab, LabError, Namespace, run

_HERE = Path(__file__).resolve().parent
_CACHE = _HERE.parent.parent / "build" / "lab"
_SOURCES = ("relay.c", "relay_link.c")
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")
_DEADLINE = 30.0
_POOL_BYTES = 1 << 30
"""Packets one way may hold; reserved only, so that no more is used than is in flight."""
_DEVICE_PACKETS = 20_000
"""What may wait in a TUN device for the relay: it is to lose packets only where it counts them."""

Way = Literal["ab", "ba", "both"]


def binary() -> Path:
    """The relay's program, compiled where that was not done for these sources and this compiler.

    Raises:
      LabError: it does not compile.
    """
    command = [*shlex.split(os.environ.get("CC", "cc")), *_FLAGS]
    digest = hashlib.sha256(" ".join(command).encode())
    for source in (*_SOURCES, "relay_link.h"):
        digest.update((_HERE / source).read_bytes())
    program = _CACHE / f"relay-{digest.hexdigest()[:16]}"
    if not program.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            made = Path(folder, "relay")
            run([*command, *(str(_HERE / name) for name in _SOURCES), "-o", str(made)], timeout=120)
            made.replace(program)  # whole or not at all: several processes may compile at once
    return program


class FlowState(enum.Enum):
    OPEN = "open"
    BLACKHOLE = "blackhole"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Settings:
    """One way of the path. Packets lost, marked or held back are the same for the same seed and
    the same sequence of packets."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Added or subtracted uniformly; it does not change the order."""
    loss: float = 0.0
    """Share of the packets, 0 to 1."""
    reorder: float = 0.0
    """Share of the packets that is held back *reorder_ms* longer, so that others overtake it."""
    reorder_ms: float = 0.0
    rate_bps: float | None = None
    """What all flows share; None is no cap."""
    queue_bytes: int | None = None
    """What may wait before the cap; None is the path's bandwidth-delay product (twice the delay),
    at least 128 KiB."""
    ecn_bytes: int | None = None
    """Packets of ECN-capable senders that find more than this waiting are marked CE; None: never."""

    def words(self) -> str:
        """As the relay's ``set`` command takes them."""
        rate = self.rate_bps or 0.0
        queue = self.queue_bytes
        if queue is None:
            queue = max(128 * 1024, int(rate / 8 * 2 * self.delay_ms / 1000))
        values = {
            "delay_ns": round(self.delay_ms * 1e6),
            "jitter_ns": round(self.jitter_ms * 1e6),
            "loss": self.loss,
            "reorder": self.reorder,
            "reorder_ns": round(self.reorder_ms * 1e6),
            "rate_bps": rate,
            "queue_bytes": queue,
            "ecn_bytes": self.ecn_bytes or 0,
        }
        return " ".join(f"{key} {value!r}" for key, value in values.items())


class Change(TypedDict, total=False):
    """Settings by name, for `Relay.change` and `wan`; what is absent stays."""

    delay_ms: float
    jitter_ms: float
    loss: float
    reorder: float
    reorder_ms: float
    rate_bps: float | None
    queue_bytes: int | None
    ecn_bytes: int | None


@dataclass(frozen=True, slots=True)
class Drops:
    """Packets that came in and will not come out, by cause."""

    loss: int
    queue: int
    police: int
    flow: int
    """Of a flow that is black-holed or reset."""
    pool: int
    """No memory left for them: more was in flight than a path is made for."""
    device: int
    """The device at the far end did not take them: it is down."""
    foreign: int
    """Not IPv4."""


@dataclass(frozen=True, slots=True)
class WayStatistics:
    """What has happened one way since the start or `Relay.clear`. Bytes are those of IP packets."""

    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    ce_marked: int
    held_back: int
    queue_bytes: int
    queue_peak_bytes: int
    queue_peak_ms: float
    queue_mean_ms: float
    """Mean over the packets that passed the cap; waiting only, without their own transmission."""
    late_peak_ms: float
    late_mean_ms: float
    """How long after its time a packet was delivered: what the relay added by being busy."""
    drops: Drops


@dataclass(frozen=True, slots=True)
class Statistics:
    flows: int
    unnumbered: int
    """Packets of flows beyond the relay's 4096, which no rule reaches."""
    ab: WayStatistics
    ba: WayStatistics


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """One end of a TCP connection, and what of it was delivered to the other end."""

    address: str
    port: int
    packets: int
    bytes: int
    policed: int
    """Packets dropped because the flow was above its rate."""


@dataclass(frozen=True, slots=True)
class FlowStatistics:
    number: int
    state: FlowState
    police_bps: float | None
    ab: FlowEnd
    """The end in namespace a."""
    ba: FlowEnd


class Relay:
    """A running relay with a TUN device of the same name in each of two namespaces; a context
    manager, whose end is the end of the process and of the devices. It also ends with the process
    that started it, however that ends. Use from one thread at a time.
    """

    def __init__(
        self, a: Namespace, b: Namespace, *, device: str = "wan0", mtu: int = 1500, seed: int = 1
    ) -> None:
        """Starts it, with no delay, loss or cap; the devices have no address yet.

        Raises:
          LabError: it does not compile or start.
        """
        self.settings = {"ab": Settings(), "ba": Settings()}
        self.mtu = mtu
        self._received = b""
        arguments = [str(a.path), str(b.path), device, str(mtu), str(_POOL_BYTES), str(seed)]
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(binary()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        try:
            self._answer("start")
            self.change()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process; harmless when repeated."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._process.kill()  # the devices go with it, and it holds nothing else
        self._process.wait(_DEADLINE)

    def change(self, way: Way = "both", **values: Unpack[Change]) -> None:
        """Change settings of one way or both while packets flow; a lower delay reorders nothing.

        Raises:
          LabError: a value is out of bounds; then nothing of that way was changed.
        """
        for name in ("ab", "ba"):
            if way in (name, "both"):
                changed = dataclasses.replace(self.settings[name], **values)
                self._command(f"set {name} {changed.words()}")
                self.settings[name] = changed

    def police(
        self, rate_bps: float, *, flows: str = "all", burst_bytes: int | None = None
    ) -> None:
        """Let each of *flows* have at most *rate_bps* each way, dropping what is above it.

        *flows* are numbers and ranges such as ``"1,4-6"``, also of connections still to come, or
        ``"all"``; a later rule takes precedence. The burst, by default what 50 ms of the rate
        carry and at least ten packets, may be sent at once after a pause.

        Raises:
          LabError: the rule is malformed, or there are more than 64.
        """
        if burst_bytes is not None and burst_bytes < self.mtu:
            raise LabError(f"refused: no packet of {self.mtu} bytes fits a burst of {burst_bytes}")
        burst = burst_bytes or max(10 * self.mtu, int(rate_bps / 8 * 0.05))
        chosen = "1-4294967295" if flows == "all" else flows.replace(" ", "")
        self._command(f"police {rate_bps!r} {burst} {chosen}")

    def police_none(self) -> None:
        """Withdraw all rules."""
        self._command("police none")

    def set_flow(self, number: int, state: FlowState) -> None:
        """Black-hole a flow (its packets vanish, those in flight too), reset it (both ends get a
        TCP reset now, and one for whatever they send later), or open it again.

        Raises:
          LabError: no such flow has appeared.
        """
        self._command(f"flow {number} {state.value}")

    def statistics(self) -> Statistics:
        found = json.loads(self._command("statistics"))
        ways = {}
        for name in ("ab", "ba"):
            drops = Drops(**found[name].pop("drops"))
            ways[name] = WayStatistics(**found[name], drops=drops)
        return Statistics(found["flows"], found["unnumbered"], ways["ab"], ways["ba"])

    def flows(self) -> list[FlowStatistics]:
        """Every TCP connection seen so far, by number; `clear` does not reset what they carried."""
        states = list(FlowState)
        return [
            FlowStatistics(
                number=flow["number"],
                state=states[flow["state"]],
                police_bps=flow["police_bps"] or None,
                ab=FlowEnd(**flow["ab"]),
                ba=FlowEnd(**flow["ba"]),
            )
            for flow in json.loads(self._command("flows"))
        ]

    def clear(self) -> None:
        """Begin the counters of both ways at nought again: what follows is measured alone."""
        self._command("clear")

    def _command(self, line: str) -> str:
        try:
            _pipe(self._process.stdin).write(line.encode() + b"\n")
        except (OSError, ValueError) as exc:
            raise LabError(f"the relay has ended: {line}: {exc}") from exc
        return self._answer(line)

    def _answer(self, line: str) -> str:
        output = _pipe(self._process.stdout)
        give_up = time.monotonic() + _DEADLINE
        while b"\n" not in self._received:
            left = max(0.0, give_up - time.monotonic())
            if not select.select([output], [], [], left)[0]:
                raise LabError(f"the relay does not answer: {line}")
            chunk = output.read(65536)
            if not chunk:
                words = _pipe(self._process.stderr).read().decode(errors="replace").strip()
                raise LabError(f"the relay has ended: {line}: {words}")
            self._received += chunk
        answer, _, self._received = self._received.partition(b"\n")
        status, _, rest = answer.decode().partition(" ")
        if status != "ok":
            raise LabError(f"the relay refused: {line}: {rest}")
        return rest


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


@dataclass(frozen=True, slots=True)
class WanPath:
    """Two namespaces and the relay between them; `lab` makes more paths, `a` and `b` run things."""

    lab: Lab
    a: Namespace
    b: Namespace
    device: str
    address_a: str
    address_b: str
    relay: Relay

    def missed(self) -> tuple[int, int]:
        """Packets lost before the relay saw them, because it came too late to read the device: of
        a, of b. Where this is not 0 the machine was too busy for what was measured.

        Raises:
          LabError: the device is gone.
        """
        counts = []
        for namespace in (self.a, self.b):
            told = run(["ip", "-n", namespace.name, "-s", "-j", "link", "show", self.device])
            counts.append(int(json.loads(told)[0]["stats64"]["tx"]["dropped"]))
        return (counts[0], counts[1])


def join(
    lab: Lab,
    a: Namespace,
    b: Namespace,
    settings: Settings,
    *,
    back: Settings | None = None,
    device: str = "wan0",
    mtu: int = 1500,
    seed: int = 1,
    congestion: str | None = None,
) -> WanPath:
    """Join two namespaces of *lab* by a relay with addresses of its own network; *back* is the way
    from *b* to *a*, like the other one if None. It ends with the lab.

    *congestion* names the algorithm of TCP on this path, for programs that do not choose one
    themselves. It is set with the route: a namespace's default may only be one that the host allows
    to everybody.

    Raises:
      LabError: it does not start, or a setting is out of bounds.
    """
    address_a, address_b = lab.subnet()
    relay = lab.enter(Relay(a, b, device=device, mtu=mtu, seed=seed))
    for namespace, address in ((a, address_a), (b, address_b)):
        namespace.configure(
            f"link set {device} mtu {mtu} txqueuelen {_DEVICE_PACKETS}",
            f"address add {address}/24 dev {device}",
            f"link set {device} up",
        )
        if congestion is not None:
            namespace.configure(
                f"route replace {address.rpartition('.')[0]}.0/24 dev {device} congctl {congestion}"
            )
    relay.change("ab", **_as_change(settings))
    relay.change("ba", **_as_change(back or settings))
    return WanPath(lab, a, b, device, address_a, address_b, relay)


def _as_change(settings: Settings) -> Change:
    values: Any = {
        field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)
    }
    change: Change = values
    return change


@contextlib.contextmanager
def wan(
    *,
    back: Settings | None = None,
    police_bps: float | None = None,
    police_flows: str = "all",
    mtu: int = 1500,
    seed: int = 1,
    congestion: str | None = None,
    **values: Unpack[Change],
) -> Iterator[WanPath]:
    """A laboratory of two namespaces `a` and `b` with one relay between them; *values* are those
    of `Settings` and hold both ways, unless *back* says otherwise for the way from b to a (so a
    round trip is twice *delay_ms*).

    Raises:
      LabError: this process may not build one (see `netns.obstacle`), or a setting is refused.
    """
    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        path = join(
            lab, a, b, Settings(**values), back=back, mtu=mtu, seed=seed, congestion=congestion
        )
        if police_bps is not None:
            path.relay.police(police_bps, flows=police_flows)
        yield path

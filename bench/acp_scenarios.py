"""The scenarios of the bench of congestion prevention, each with fresh nodes on a fresh path.

What is measured at the bottleneck is measured by the relay that makes it; what the nodes themselves
say is used for smoothed and least round trips alone, which only their kernel knows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import BenchError, percentile
from bench.lab.relay import WanPath, wan
from bench.lab_nodes import LabNode, Site, nodes
from bench.processes import Measured, free_port, program

FAIRNESS = ("flow", "transfer", "greedy")
_SETTLE = 4.0
"""Seconds until what is started counts: slow start and the first decisions about streams are over."""
_CONTEST = 8.0
"""The same where two share the path: behind a deep queue each of their round trips takes long."""
_LATER = 2.0
"""Seconds after the first that a second one begins, when the first has the whole path."""
_SAMPLE = 0.2
_FAST_SAMPLE = 0.05
_HOLD = 0.5
"""Seconds that a queue has to stay short for having become so."""
_SHORT_QUEUE = 1.5
"""Round trips that may wait: together with its own the round trip is then 2.5 times the least."""
_PLAIN = "cubic"
"""The congestion control of the plain TCP connection."""
_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The path of all scenarios, and what is sent over it."""

    directory: Path
    source: Path
    rate_mbps: float
    delay_ms: float
    queue_ms: float
    seconds: float

    @property
    def rate_bps(self) -> float:
        return self.rate_mbps * 1e6

    @contextlib.contextmanager
    def path(self) -> Iterator[WanPath]:
        queue = int(self.rate_bps / 8 * self.queue_ms / 1000)
        with wan(delay_ms=self.delay_ms, rate_bps=self.rate_bps, queue_bytes=queue) as path:
            yield path

    def sites(
        self, path: WanPath, number: int = 0, settings: Mapping[str, str] | None = None
    ) -> tuple[Site, Site]:
        """A sender and a receiver. What is sent cannot be compressed, and nothing tries to."""
        wanted = {"dwcp.hde.codec": "off", **(settings or {})}
        return (
            Site(path.a, path.address_a, number, wanted),
            Site(path.b, path.address_b, number, wanted),
        )


def one_transfer(bottleneck: Bottleneck, congestion: str, acp: str) -> dict[str, Any]:
    settings = {"dwcp.amst.congestion": congestion, "dwcp.acp.queue": acp}
    with (
        bottleneck.path() as path,
        nodes(bottleneck.directory, *bottleneck.sites(path, settings=settings)) as (a, b),
    ):
        a.send(bottleneck.source, b, "one")
        trips = RoundTrips()
        _watch(a, trips, _SETTLE)
        path.relay.clear()
        settled_at, came, began = trips.count, b.received_bytes(), time.monotonic()
        _watch(a, trips, bottleneck.seconds)
        seconds, came = time.monotonic() - began, b.received_bytes() - came
        way = path.relay.statistics().ab
        missed = sum(path.missed())
    return {
        "goodput_mbps": round(came * 8 / 1e6 / seconds, 2),
        "link_share": round(way.bytes_out * 8 / seconds / bottleneck.rate_bps, 4),
        "added_ms_mean": way.queue_mean_ms,
        "added_ms_peak": way.queue_peak_ms,
        **trips.figures(settled_at),
        "dropped_packets": way.drops.queue,
        "missed_packets": missed,
    }


class RoundTrips:
    """What a node's kernel says of its streams, sample by sample."""

    def __init__(self) -> None:
        self._least_us: int | None = None
        self._smoothed_us: list[float] = []
        self._streams: list[int] = []
        self._congestion = ""

    @property
    def count(self) -> int:
        return len(self._smoothed_us)

    def add(self, streams: Sequence[Mapping[str, Any]]) -> None:
        """Streams that have not measured one yet are left out."""
        measured = [stream for stream in streams if stream["rtt_us"] and stream["min_rtt_us"]]
        if not measured:
            return
        # Of all streams and times: one that began when the queue stood knows no better least one.
        least = min(stream["min_rtt_us"] for stream in measured)
        self._least_us = least if self._least_us is None else min(self._least_us, least)
        self._smoothed_us.append(percentile([stream["rtt_us"] for stream in measured], 0.5))
        self._streams.append(len(measured))
        self._congestion = str(measured[0]["congestion"])

    def figures(self, first: int) -> dict[str, Any]:
        """Of the samples from *first* on; the least one of all.

        Raises:
          BenchError: there are none.
        """
        smoothed = self._smoothed_us[first:]
        if not smoothed or self._least_us is None:
            raise BenchError("the node did not tell of a round trip")
        return {
            "rtt_ms": round(percentile(smoothed, 0.5) / 1000, 2),
            "min_rtt_ms": round(self._least_us / 1000, 2),
            "rtt_ratio": round(percentile(smoothed, 0.5) / self._least_us, 3),
            "rtt_ratio_p95": round(percentile(smoothed, 0.95) / self._least_us, 3),
            "streams_open": self._streams[-1],
            "congestion_used": self._congestion,
        }


def _watch(node: LabNode, trips: RoundTrips, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for link in node.links():
            trips.add(link["streams"])
        time.sleep(_SAMPLE)


def two_transfers(
    bottleneck: Bottleneck, fairness: str, streams: tuple[int, int]
) -> dict[str, Any]:
    """Each from a node of its own to another one, so over a link of its own; the second begins when
    the first has the path. *streams* are fixed numbers, 0 for what the node wants."""
    with bottleneck.path() as path, contextlib.ExitStack() as stack:
        sites: list[Site] = []
        for number, count in enumerate(streams):
            settings = {"dwcp.acp.fairness": fairness}
            if count:
                settings |= {
                    f"dwcp.amst.streams_{bound}": str(count) for bound in ("min", "max", "start")
                }
            sites += bottleneck.sites(path, number, settings)
        a, b, c, d = stack.enter_context(nodes(bottleneck.directory, *sites))
        a.send(bottleneck.source, b, "first")
        time.sleep(_LATER)
        c.send(bottleneck.source, d, "second")
        time.sleep(_CONTEST)
        return _shares(path, bottleneck.seconds, (b.data_port, d.data_port))


def beside_tcp(bottleneck: Bottleneck, fairness: str) -> dict[str, Any]:
    """One transfer, and beside it one connection of iperf3, which begins when that has the path."""
    settings = {"dwcp.acp.fairness": fairness}
    iperf = program("iperf3", "iperf3")
    with (
        bottleneck.path() as path,
        nodes(bottleneck.directory, *bottleneck.sites(path, settings=settings)) as (a, b),
    ):
        port = free_port()
        served = [iperf, "-s", "-1", "-B", path.address_b, "-p", str(port), "--forceflush"]
        sent = [iperf, "-c", path.address_b, "-p", str(port), "-C", _PLAIN]
        sent += ["-t", f"{_CONTEST + bottleneck.seconds + 10:g}"]
        a.send(bottleneck.source, b, "one")
        time.sleep(_LATER)
        with Measured(served, prefix=path.b.command([])) as server:
            server.wait_output("listening", _START_SECONDS)
            with Measured(sent, prefix=path.a.command([])) as client:
                time.sleep(_CONTEST)
                result = _shares(path, bottleneck.seconds, (b.data_port, port))
                if client.ended():
                    raise BenchError(f"iperf3 ended early:\n{client.output()[-1000:]}")
        return result


def _shares(path: WanPath, seconds: float, ports: Sequence[int]) -> dict[str, Any]:
    """What the connections to each of the *ports* in namespace b get of the path."""
    path.relay.clear()
    before, began = carried(path, ports), time.monotonic()
    time.sleep(seconds)
    after, seconds = carried(path, ports), time.monotonic() - began
    way = path.relay.statistics().ab
    rates = [(end - start) * 8 / 1e6 / seconds for start, end in zip(before, after, strict=True)]
    return {
        "mbps": [round(rate, 2) for rate in rates],
        "jain": round(jain(rates), 4),
        "link_share": round(sum(rates) * 1e6 / (path.relay.settings["ab"].rate_bps or 1), 4),
        "added_ms_mean": way.queue_mean_ms,
        "added_ms_peak": way.queue_peak_ms,
        "dropped_packets": way.drops.queue,
        "missed_packets": sum(path.missed()),
    }


def carried(path: WanPath, ports: Sequence[int]) -> list[int]:
    """Bytes from a to b so far, by the port in b."""
    flows = path.relay.flows()
    return [sum(flow.ab.bytes for flow in flows if flow.ba.port == port) for port in ports]


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1 / n where one has all; 1 of nothing."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def halved(bottleneck: Bottleneck, acp: str) -> dict[str, Any]:
    """The path's rate becomes half of what it was in the middle of a transfer: when the queue is
    short again, and what is carried in the second half of the time."""
    with (
        bottleneck.path() as path,
        nodes(bottleneck.directory, *bottleneck.sites(path, settings={"dwcp.acp.queue": acp})) as (
            a,
            b,
        ),
    ):
        a.send(bottleneck.source, b, "one")
        time.sleep(_SETTLE + _LATER)
        rate = bottleneck.rate_bps / 2
        path.relay.clear()
        path.relay.change(rate_bps=rate)
        began = time.monotonic()
        moments: list[tuple[float, float]] = []
        half: tuple[float, int] | None = None
        while (at := time.monotonic() - began) < bottleneck.seconds:
            way = path.relay.statistics().ab
            moments.append((at, way.queue_bytes * 8 / rate * 1000))
            if half is None and at >= bottleneck.seconds / 2:
                half = at, way.bytes_out
            time.sleep(_FAST_SAMPLE)
        way, at = path.relay.statistics().ab, time.monotonic() - began
        assert half is not None
        since, before = half
    return {
        "seconds_to_react": settled(moments, _SHORT_QUEUE * 2 * bottleneck.delay_ms, _HOLD),
        "added_ms_peak": way.queue_peak_ms,
        "added_ms_at_end": round(percentile([ms for _, ms in moments[-20:]], 0.5), 2),
        "link_share": round((way.bytes_out - before) * 8 / (at - since) / rate, 4),
        "dropped_packets": way.drops.queue,
    }


def settled(moments: Sequence[tuple[float, float]], limit: float, hold: float) -> float | None:
    """From when on a value was at most *limit* for *hold* seconds, for the first time; None: never.
    *moments* are seconds and values, in order."""
    since: float | None = None
    for at, value in moments:
        if value > limit:
            since = None
        elif since is None:
            since = at
        if since is not None and at - since >= hold:
            return round(since, 2)
    return None

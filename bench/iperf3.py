"""iperf3 as a peer: what one maintained program gets through TCP, memory to memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness import BenchError
from bench.processes import GIB, Measured, first_line, free_port, program

_START_SECONDS = 30.0
_MOST_STREAMS = 128
"""iperf3's own limit (MAX_STREAMS); above it, it prints its manual."""


@dataclass(frozen=True, slots=True)
class Throughput:
    gbps: float
    """10^9 bits of payload a second, as the receiver counted them."""
    received_bytes: int
    """Until the sender stopped: what was still under way then is not in it."""
    seconds: float
    sender_cpu_s_per_gib: float
    receiver_cpu_s_per_gib: float
    retransmits: int
    congestion: str
    """The algorithm the sender's kernel really used."""

    @property
    def cpu_s_per_gib(self) -> float:
        """Of both processes, user and system. What the kernel does in interrupts on a core that
        belongs to neither is not in it."""
        return self.sender_cpu_s_per_gib + self.receiver_cpu_s_per_gib


def version() -> str:
    return first_line([program("iperf3", "iperf3"), "--version"])


def measure(
    streams: int,
    *,
    total_bytes: int | None = None,
    seconds: float | None = None,
    omit_seconds: int = 0,
    congestion: str | None = None,
    address: str = "127.0.0.1",
    client_prefix: Sequence[str] = (),
    server_prefix: Sequence[str] = (),
    timeout: float = 120.0,
) -> Throughput:
    """Send *total_bytes*, or for *seconds*, over *streams* connections from a client process to a
    server process, both started for it and gone afterwards.

    *omit_seconds* are sent before that, and left out of everything but the CPU time (``-O``).
    *congestion* is given to iperf3 as is (``-C``); None leaves the system's. The prefixes start
    client and server elsewhere (``namespace.command([])``); *address* is then the server's there.
    A short run measures iperf3's start as well: its server accepts all streams before the clock
    starts, but the clock of the CPU figures runs from the start of each process.

    Raises:
      BenchError: iperf3 is not installed, failed, or took more than *timeout* seconds.
    """
    if (total_bytes is None) == (seconds is None):
        raise BenchError("iperf3 sends a number of bytes or for a time: give one of them")
    if streams > _MOST_STREAMS:
        raise BenchError(f"iperf3 opens at most {_MOST_STREAMS} streams, not {streams}")
    iperf3 = program("iperf3", "iperf3")
    # The port is free here; in another namespace it is as likely to be.
    port = str(free_port())
    amount = ["-n", str(total_bytes)] if total_bytes is not None else ["-t", f"{seconds:g}"]
    options = ["-C", congestion] if congestion is not None else []
    if omit_seconds:
        options += ["-O", str(omit_seconds)]
    served = [iperf3, "-s", "-1", "-B", address, "-p", port, "--forceflush"]
    sent = [iperf3, "-c", address, "-p", port, "-P", str(streams), *amount, *options, "-J"]
    with Measured(served, prefix=server_prefix) as server:
        server.wait_output("listening", _START_SECONDS)
        with Measured(sent, prefix=client_prefix) as client:
            sender = client.wait(timeout)
        receiver = server.wait(_START_SECONDS)
    return _throughput(sender.output, sender.cpu_seconds, receiver.cpu_seconds)


def _throughput(text: str, sender_cpu: float, receiver_cpu: float) -> Throughput:
    try:
        report = json.loads(text)
        end = report["end"]
        received = end["sum_received"]
        gib = received["bytes"] / GIB
        return Throughput(
            gbps=received["bits_per_second"] / 1e9,
            received_bytes=received["bytes"],
            seconds=received["seconds"],
            sender_cpu_s_per_gib=sender_cpu / gib,
            receiver_cpu_s_per_gib=receiver_cpu / gib,
            retransmits=end["sum_sent"]["retransmits"],
            congestion=end["sender_tcp_congestion"],
        )
    except (ValueError, KeyError, ZeroDivisionError) as exc:
        raise BenchError(f"iperf3 reported no result:\n{text[-2000:]}") from exc

"""The RDMA channel over Soft-RoCE: what a real driver does that the false library only imitates."""

from __future__ import annotations

import hashlib
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from novacron._native import rdma
from novacron._native.ffi import NativeFailureError, NativeUnavailableError
from tests.lab.guest.commands import COMMAND_SECONDS, run
from tests.lab.guest.rdma_peer import from_json, to_json
from tests.lab.guest.rxe import RxeEnd, RxePair

SLOTS = 8
SLOT_BYTES = 64 << 10
TOTAL_BYTES = 4 << 20
DEADLINE_SECONDS = 60.0
"""For anything that has to happen. The retries take 2 s, and emulation makes all else slow."""
LIMITED_BYTES = 256 << 10


@contextmanager
def open_channels(pair: RxePair) -> Iterator[tuple[rdma.Channel, rdma.Channel]]:
    with rdma.open_device("rxe0") as left, rdma.open_device("rxe1") as right:
        channels = (
            left.open_channel(SLOTS, SLOT_BYTES),
            # Not the same number of slots, which nothing demands.
            right.open_channel(SLOTS // 2, SLOT_BYTES),
        )
        assert channels[0].local().gid[12:] == bytes(map(int, pair.left.address.split(".")))
        channels[0].connect(channels[1].local())
        channels[1].connect(channels[0].local())
        yield channels


def messages() -> Iterator[bytes]:
    """Each of another size, from a byte to a whole slot."""
    number = 0
    while True:
        seed = hashlib.shake_128(number.to_bytes(4)).digest(4)
        size = SLOT_BYTES if number % 5 == 0 else 1 + int.from_bytes(seed) % SLOT_BYTES
        yield (number.to_bytes(4) + seed * (size // 4 + 1))[:size]
        number += 1


class Stream:
    """What one end sends, and what has to arrive at the other."""

    def __init__(self, sender: rdma.Channel) -> None:
        self.sender = sender
        self.sent_bytes = 0
        self.received_bytes = 0
        self._outgoing = messages()
        self._expected = messages()
        self._next = next(self._outgoing)

    def send(self, limit_bytes: int) -> None:
        while self.sent_bytes < limit_bytes and self.sender.send(self._next):
            self.sent_bytes += len(self._next)
            self._next = next(self._outgoing)

    def check(self, received: list[bytes]) -> None:
        for message in received:
            assert message == next(self._expected)
            self.received_bytes += len(message)


def exchange(
    channels: tuple[rdma.Channel, rdma.Channel], limit_bytes: int, until: Callable[[], bool]
) -> tuple[Stream, Stream]:
    """Both ends send at once until each has sent *limit_bytes*, or *until* says so."""
    streams = (Stream(channels[0]), Stream(channels[1]))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not until() and min(stream.received_bytes for stream in streams) < limit_bytes:
        for stream in streams:
            stream.send(limit_bytes)
        ready = select.select(channels, [], [], max(0, deadline - time.monotonic()))[0]
        assert ready, f"stuck after {[stream.received_bytes for stream in streams]} bytes"
        for receiver, stream in zip(channels, reversed(streams), strict=True):
            if receiver in ready:
                stream.check(receiver.receive())
    return streams


def fails(channel: rdma.Channel) -> str:
    """Waits for the channel's failure, sending where there is room; its reason."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        while True:
            channel.send(b"is anybody there?")
            assert select.select([channel], [], [], max(0, deadline - time.monotonic()))[0]
            channel.receive()
    except NativeFailureError as exc:
        return str(exc)


def test_messages_cross_in_both_directions_at_once(rxe_pair: RxePair) -> None:
    before = rxe_pair.left.veth.sent_packets(), rxe_pair.right.veth.sent_packets()
    with open_channels(rxe_pair) as channels:
        streams = exchange(channels, TOTAL_BYTES, lambda: False)
    assert all(stream.received_bytes >= TOTAL_BYTES for stream in streams)
    # Over the wire, in packets of at most 1024 bytes of payload on an interface of 1500.
    assert rxe_pair.left.veth.sent_packets() - before[0] >= TOTAL_BYTES // 1024
    assert rxe_pair.right.veth.sent_packets() - before[1] >= TOTAL_BYTES // 1024


@contextmanager
def removal(channels: tuple[rdma.Channel, rdma.Channel], *command: str) -> Iterator[None]:
    """Removes something while it is in use. This kernel's rxe waits until its device is closed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield
    finally:
        for channel in channels:
            channel.device.close()
        output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, output


def transfer_until_failure(channels: tuple[rdma.Channel, rdma.Channel]) -> str:
    with pytest.raises(NativeFailureError) as caught:
        exchange(channels, 1 << 40, lambda: False)
    return str(caught.value)


def test_a_device_removed_in_mid_transfer_ends_both_sides(rxe_pair: RxePair) -> None:
    with open_channels(rxe_pair) as channels:
        exchange(channels, 1 << 20, lambda: False)
        with removal(channels, "rdma", "link", "delete", "rxe0"):
            assert "rxe0 was removed" in transfer_until_failure(channels)
            assert "rxe0 was removed" in fails(channels[0])
            assert channels[0].device.lost
            with pytest.raises(NativeUnavailableError, match="rxe0 was removed"):
                channels[0].device.open_channel(SLOTS, SLOT_BYTES)
            assert not channels[1].device.lost
            channels[0].close()
            assert "the peer does not answer" in fails(channels[1])
    assert not rxe_pair.left.exists()
    assert rxe_pair.right.exists()


def test_an_interface_removed_in_mid_transfer_ends_both_sides(rxe_pair: RxePair) -> None:
    with open_channels(rxe_pair) as channels:
        exchange(channels, 1 << 20, lambda: False)
        # The other interface of the pair goes with it.
        with removal(channels, "ip", "link", "delete", rxe_pair.left.veth.interface):
            transfer_until_failure(channels)
            for channel in channels:
                fails(channel)


def test_a_pulled_cable_ends_whoever_sends(rxe_pair: RxePair) -> None:
    with open_channels(rxe_pair) as channels:
        exchange(channels, 1 << 20, lambda: False)
        run("ip", "link", "set", rxe_pair.left.veth.interface, "down")
        # An interface that is down takes its routes along: rxe sees that it cannot even send.
        for channel in channels:
            assert re.search("does not answer|queue pair operation error", fails(channel))


def test_a_peer_that_is_gone_is_missed_by_whoever_only_waits(rxe_pair: RxePair) -> None:
    with open_channels(rxe_pair) as channels:
        exchange(channels, 1 << 20, lambda: False)
        channels[1].close()
        deadline = time.monotonic() + DEADLINE_SECONDS
        with pytest.raises(NativeFailureError, match="the peer does not answer"):
            while select.select([channels[0]], [], [], max(0, deadline - time.monotonic()))[0]:
                channels[0].receive()


@contextmanager
def peer_process(end: RxeEnd) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.lab.guest.rdma_peer"),
            *(end.device, str(SLOTS), str(SLOT_BYTES)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_is_killed_is_missed_by_its_peer(rxe_pair: RxePair) -> None:
    with (
        rdma.open_device("rxe0") as device,
        device.open_channel(SLOTS, SLOT_BYTES) as channel,
        peer_process(rxe_pair.right) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        peer = from_json(process.stdout.readline())
        channel.connect(peer)
        print(to_json(channel.local()), file=process.stdin, flush=True)
        assert process.stdout.readline() == "connected\n"
        stream = Stream(channel)
        while stream.received_bytes < 1 << 20:
            stream.send(1 << 20)
            assert select.select([channel], [], [], DEADLINE_SECONDS)[0]
            stream.check(channel.receive())
        process.send_signal(signal.SIGKILL)
        # At once: the device of a process that is being ended still acknowledges the last writes, and
        # then there is no credit left to find out with, and nobody who will return one.
        assert "the peer does not answer" in fails(channel)


def test_a_process_that_may_not_lock_memory_is_told_the_limit(rxe_pair: RxePair) -> None:
    assert rxe_pair.left.exists()
    # The limit binds only whoever may not exceed it.
    program = (
        "from novacron._native import rdma\n"
        "with rdma.open_device('rxe0') as device:\n"
        f"    device.open_channel({SLOTS}, {SLOT_BYTES})\n"
    )
    limits = (LIMITED_BYTES, LIMITED_BYTES)
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-ipc_lock",
            "--inh-caps=-ipc_lock",
            sys.executable,
            "-c",
            program,
        ],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, limits),
    )
    assert "NativeDeniedError" in done.stderr, done.stdout + done.stderr
    assert f"RLIMIT_MEMLOCK is {LIMITED_BYTES} bytes" in done.stderr

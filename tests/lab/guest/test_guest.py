"""The guest has what the host's kernel may lack, and what it writes stays in it."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import statistics
import struct
import tempfile
import time
from pathlib import Path

from novacron._native import tcp
from tests.lab.guest.commands import run
from tests.lab.guest.veth import VethPair, open_netem

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

ROUND_TRIPS = 5
EXCHANGES = 50
"""Far more than the handful of packets that a new interface sends by itself."""
TIMEOUT = 20.0


def test_memory_may_be_locked_without_limit() -> None:
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (resource.RLIM_INFINITY,) * 2


def test_what_is_written_stays_in_the_guests_memory(repository: Path) -> None:
    kinds = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        kinds[target] = kind
    assert kinds["/"] == "overlay"
    assert kinds["/dev/shm"] == "tmpfs"
    with tempfile.NamedTemporaryFile(dir=repository) as file:
        assert file.write(b"x") == 1


def test_a_temporary_file_keeps_its_holes(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x")
    assert path.stat().st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        assert 0 < os.lseek(file.fileno(), 0, os.SEEK_DATA) <= 32 << 20


def test_a_tun_device_can_be_made() -> None:
    run("modprobe", "tun")
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        request = struct.pack("16sH22x", b"lab-tun", IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
        assert Path("/sys/class/net/lab-tun").exists()
    finally:
        os.close(descriptor)
    assert not Path("/sys/class/net/lab-tun").exists()


def test_a_network_namespace_can_be_made() -> None:
    run("ip", "netns", "add", "lab")
    try:
        assert "lo" in run("ip", "-n", "lab", "link", "show")
    finally:
        run("ip", "netns", "delete", "lab")


def test_packets_can_be_paced_by_fair_queueing(veth_pair: VethPair) -> None:
    interface = veth_pair.left.interface
    run("tc", "qdisc", "replace", "dev", interface, "root", "fq")
    assert "qdisc fq " in run("tc", "qdisc", "show", "dev", interface)


def test_what_is_sent_to_the_other_end_crosses_the_wire(veth_pair: VethPair) -> None:
    left, right = veth_pair.left, veth_pair.right
    before = left.sent_packets(), right.sent_packets()
    with (
        socket.create_server((right.address, 0)) as server,
        socket.create_connection(server.getsockname(), TIMEOUT) as client,
    ):
        accepted, peer = server.accept()
        with accepted:
            assert peer[0] == left.address
            accepted.settimeout(TIMEOUT)
            for _ in range(EXCHANGES):
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
                accepted.sendall(b"y")
                assert client.recv(1) == b"y"
    assert left.sent_packets() - before[0] >= EXCHANGES
    assert right.sent_packets() - before[1] >= EXCHANGES


def round_trip_time(pair: VethPair) -> float:
    """Seconds of a datagram to the right end and back, the median of some."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        for end, sock in ((pair.right, there), (pair.left, here)):
            sock.bind((end.address, 0))
            sock.settimeout(TIMEOUT)
        taken = []
        for _ in range(ROUND_TRIPS + 1):
            started = time.monotonic()
            here.sendto(b"there", there.getsockname())
            there.sendto(b"and back", there.recvfrom(16)[1])
            assert here.recv(16) == b"and back"
            taken.append(time.monotonic() - started)
    return statistics.median(taken[1:])  # the first one also asked for the neighbour's address


def test_a_delay_of_the_wire_shows_in_the_round_trip(veth_pair: VethPair) -> None:
    without = round_trip_time(veth_pair)
    with (
        open_netem(veth_pair.left, "delay", "250ms"),
        open_netem(veth_pair.right, "delay", "250ms"),
    ):
        delayed = round_trip_time(veth_pair)
    # Emulated, an undelayed round trip takes a few milliseconds, and a hundred on a bad day.
    assert delayed > 3 * without


def test_a_lossy_wire_loses_what_is_sent_and_nothing_else(veth_pair: VethPair) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        there.bind((veth_pair.right.address, 0))
        there.settimeout(TIMEOUT)
        # The first one also learns the neighbour's address: without it the kernel would keep what is
        # lost below, and send it afterwards.
        here.sendto(b"before", there.getsockname())
        assert there.recv(16) == b"before"
        with open_netem(veth_pair.left, "loss", "100%"):
            for _ in range(ROUND_TRIPS):
                here.sendto(b"lost", there.getsockname())
        here.sendto(b"after", there.getsockname())
        assert there.recv(16) == b"after"


def test_dctcp_can_be_chosen_and_is_read_back() -> None:
    run("modprobe", "tcp_dctcp")
    assert "dctcp" in tcp.available()
    with socket.socket() as sock:
        assert tcp.chosen(sock.fileno()) != "dctcp"
        tcp.choose(sock.fileno(), "dctcp")
        assert tcp.chosen(sock.fileno()) == "dctcp"

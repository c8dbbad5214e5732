"""Soft-RoCE devices come, carry data between their ends, and go."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from novacron._native import verbs
from novacron._native.ffi import NativeUnavailableError
from tests.lab.guest.commands import COMMAND_SECONDS, run
from tests.lab.guest.rxe import RxeEnd, RxePair, wait_until

MESSAGES = 50
PINGPONG_PORT = 18515
"""Where `ibv_rc_pingpong` meets its peer when it is not told otherwise."""


def test_a_new_device_becomes_active(rxe_pair: RxePair) -> None:
    listed = {device.name: device for device in verbs.devices()}
    assert set(listed) == {"rxe0", "rxe1"}
    for device in listed.values():
        assert device.ports_reason == ""
        [port] = device.ports
        assert (port.state, port.link_layer) == ("active", "ethernet")
    assert "PORT_ACTIVE" in run("ibv_devinfo", "-d", rxe_pair.left.device)


def test_the_address_table_has_the_ends_address_at_its_index(rxe_pair: RxePair) -> None:
    for end in (rxe_pair.left, rxe_pair.right):
        verbose = run("ibv_devinfo", "-v", "-d", end.device)
        assert f"GID[{end.gid_index:3}]:\t\t::ffff:{end.address}, RoCE v2" in verbose


@contextmanager
def pingpong(end: RxeEnd, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *("ibv_rc_pingpong", "-d", end.device, "-g", str(end.gid_index)),
            *("-n", str(MESSAGES), "-c", *arguments),  # -c: the contents are checked as well
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_two_ends_talk_to_each_other(rxe_pair: RxePair) -> None:
    left, right = rxe_pair.left, rxe_pair.right
    before = left.veth.sent_packets(), right.veth.sent_packets()
    with pingpong(left) as server:
        wait_listening(PINGPONG_PORT)
        with pingpong(right, left.address) as client:
            for process in (client, server):
                output, _ = process.communicate(timeout=COMMAND_SECONDS)
                assert process.returncode == 0, output
                assert f"{MESSAGES} iters" in output
    # Both devices are in one kernel, which could have copied from one to the other.
    assert left.veth.sent_packets() - before[0] >= MESSAGES
    assert right.veth.sent_packets() - before[1] >= MESSAGES
    assert left.counter("sent_pkts") >= MESSAGES
    assert right.counter("rcvd_pkts") >= MESSAGES


def wait_listening(port: int) -> None:
    """Until a socket of any address listens on *port*."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    listening = re.compile(rf":{port:04X} \S+ 0A ")
    wait_until(
        lambda: any(listening.search(table.read_text()) for table in tables),
        f"somebody listens on port {port}",
    )


def test_a_removed_device_is_seen_to_be_gone(rxe_pair: RxePair) -> None:
    rxe_pair.left.remove()
    assert not rxe_pair.left.exists()
    assert [device.name for device in verbs.devices()] == ["rxe1"]
    rxe_pair.right.remove()
    with pytest.raises(NativeUnavailableError):
        verbs.devices()


def test_a_pulled_cable_takes_both_ports_down(rxe_pair: RxePair) -> None:
    left, right = rxe_pair.left, rxe_pair.right
    run("ip", "link", "set", left.veth.interface, "down")
    # The other end hears of it from a work queue.
    wait_until(lambda: (left.state(), right.state()) == ("DOWN", "DOWN"), "both ports are down")
    listed = verbs.devices()
    assert {device.name for device in listed} == {"rxe0", "rxe1"}
    assert {port.state for device in listed for port in device.ports} == {"down"}


def test_a_device_goes_with_the_interface_below_it(rxe_pair: RxePair) -> None:
    left, right = rxe_pair.left, rxe_pair.right
    run("ip", "link", "delete", left.veth.interface)
    wait_until(lambda: not left.exists() and not right.exists(), "both devices are gone")
    with pytest.raises(NativeUnavailableError):
        verbs.devices()

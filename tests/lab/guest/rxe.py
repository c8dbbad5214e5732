"""Soft-RoCE devices on a pair of virtual Ethernet devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.guest.commands import run
from tests.lab.guest.veth import VethEnd, open_veth_pair

WAIT_SECONDS = 30.0
"""The kernel changes states, addresses and devices from work queues, slow under emulation."""

RDMA = Path("/sys/class/infiniband")
PORT = 1
"""An rxe device has one port."""


@dataclass(frozen=True)
class RxeEnd:
    device: str
    veth: VethEnd
    gid_index: int
    """Of the RoCE v2 entry with the veth's IPv4 address."""
    port: int = PORT

    @property
    def address(self) -> str:
        return self.veth.address

    def exists(self) -> bool:
        return (RDMA / self.device).exists()

    def state(self) -> str:
        """``ACTIVE`` or ``DOWN``; empty where there is no such device."""
        return _state(self.device)

    def remove(self) -> None:
        """What a driver that is unloaded amounts to: every queue pair of the device breaks. Once."""
        run("rdma", "link", "delete", self.device)

    def counter(self, name: str) -> int:
        """One of ``/sys/class/infiniband/DEVICE/ports/1/hw_counters``, such as ``sent_pkts``."""
        return int((RDMA / self.device / f"ports/{self.port}/hw_counters" / name).read_text())


@dataclass(frozen=True)
class RxePair:
    left: RxeEnd
    right: RxeEnd


@contextmanager
def open_rxe_pair() -> Iterator[RxePair]:
    """Active devices ``rxe0`` and ``rxe1``, connected to each other; removed on leaving, unless the
    test did. One pair at a time."""
    run("modprobe", "rdma_rxe")
    with open_veth_pair() as veths:
        ends = {"rxe0": veths.left, "rxe1": veths.right}
        batch = [f"link add {name} type rxe netdev {end.interface}" for name, end in ends.items()]
        run("rdma", "-b", "-", given="\n".join(batch))
        pair = RxePair(*(_wait_ready(name, end) for name, end in ends.items()))
        yield pair
    # The devices go with the interfaces below them, a little later; the next pair has their names.
    wait_until(lambda: not pair.left.exists() and not pair.right.exists(), "both devices are gone")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """For what the kernel does in its own time. *what* says it for the message.

    Raises:
      AssertionError: not within `WAIT_SECONDS`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:g} s in vain until {what}"
        time.sleep(0.05)


def _wait_ready(device: str, veth: VethEnd) -> RxeEnd:
    wait_until(lambda: _state(device) == "ACTIVE", f"{device} is active")
    wait_until(
        lambda: _gid_index(device, veth.address) is not None,
        f"{device} has {veth.address} in its table of addresses",
    )
    index = _gid_index(device, veth.address)
    assert index is not None
    return RxeEnd(device, veth, index)


def _state(device: str) -> str:
    """As in ``4: ACTIVE``, without the number; empty where there is no such device."""
    try:
        return (RDMA / device / f"ports/{PORT}/state").read_text().split()[-1]
    except OSError:
        return ""


def _gid_index(device: str, address: str) -> int | None:
    wanted = "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(
        *map(int, address.split("."))
    )
    port = RDMA / device / f"ports/{PORT}"
    for path in sorted((port / "gids").glob("*"), key=lambda path: int(path.name)):
        try:
            gid = path.read_text().strip()
            kind = (port / "gid_attrs/types" / path.name).read_text().strip()
        except OSError:  # an entry that is not in use
            continue
        if gid == wanted and kind == "RoCE v2":
            return int(path.name)
    return None

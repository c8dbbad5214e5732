"""A pair of virtual Ethernet devices in one network namespace, with the traffic on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.guest.commands import run

LOCAL_RULE = 100
"""Priority of the rule for the machine's own addresses, which the kernel puts at 0."""


@dataclass(frozen=True)
class VethEnd:
    interface: str
    address: str

    def sent_packets(self) -> int:
        return int(Path(f"/sys/class/net/{self.interface}/statistics/tx_packets").read_text())


@dataclass(frozen=True)
class VethPair:
    left: VethEnd
    right: VethEnd


@contextmanager
def open_veth_pair() -> Iterator[VethPair]:
    """Two connected ends, removed on leaving. One pair at a time.

    Both ends are in the initial namespace because this kernel's ``rdma_rxe`` listens only there. A
    kernel delivers what is sent to its own address without a device, so the routes of the two
    addresses are asked before those of the machine itself: whatever is sent to one end's address
    leaves through the other end.
    """
    pair = VethPair(VethEnd("lab0", "10.77.0.1"), VethEnd("lab1", "10.77.0.2"))
    left, right = pair.left, pair.right
    _ask_routes_before_own_addresses(pair)
    run("ip", "link", "add", left.interface, "type", "veth", "peer", "name", right.interface)
    try:
        for end in (left, right):
            settings = Path("/proc/sys/net/ipv4/conf", end.interface)
            (settings / "accept_local").write_text("1")  # the sender's address is ours as well
            (settings / "rp_filter").write_text("0")
        # One process, not eight: each takes a tenth of a second under emulation.
        batch = [f"address add {end.address}/32 dev {end.interface}" for end in (left, right)]
        batch += [f"link set {end.interface} up" for end in (left, right)]
        batch += [
            f"route add {other.address} dev {own.interface} src {own.address} table {_table(other)}"
            for own, other in ((left, right), (right, left))
        ]
        run("ip", "-batch", "-", given="\n".join(batch))
        yield pair
    finally:
        if Path("/sys/class/net", left.interface).exists():  # a test may have pulled it out
            run("ip", "link", "delete", left.interface)


def _table(end: VethEnd) -> int:
    """The routing table for what is sent to *end*."""
    return 7700 + int(end.address.rpartition(".")[2])


def _ask_routes_before_own_addresses(pair: VethPair) -> None:
    """Once in the life of a guest; without the interfaces the rules do nothing."""
    if f"{LOCAL_RULE}:" in run("ip", "rule", "list"):
        return
    # "iif lo" is what leaves this machine, not what arrives on the other end.
    batch = [
        f"rule add pref {LOCAL_RULE - 1} iif lo to {end.address} table {_table(end)}"
        for end in (pair.left, pair.right)
    ]
    batch += [f"rule add pref {LOCAL_RULE} table local", "rule delete pref 0 table local"]
    run("ip", "-batch", "-", given="\n".join(batch))


@contextmanager
def open_netem(end: VethEnd, *settings: str) -> Iterator[None]:
    """``netem`` on what leaves through *end*: ``open_netem(end, "delay", "50ms", "loss", "1%")``."""
    run("tc", "qdisc", "replace", "dev", end.interface, "root", "netem", *settings)
    try:
        yield
    finally:
        run("tc", "qdisc", "delete", "dev", end.interface, "root")

"""Network interfaces: speed, MTU, memory node, driver."""

from __future__ import annotations

from novacron.environment.fact import Value
from novacron.environment.machine import Machine

NETWORK = "/sys/class/net"

ARPHRD_ETHER = 1
ARPHRD_INFINIBAND = 32
ARPHRD_LOOPBACK = 772
KINDS = {ARPHRD_ETHER: "ethernet", ARPHRD_INFINIBAND: "infiniband", ARPHRD_LOOPBACK: "loopback"}


def parse_count(text: str | None) -> int | None:
    """A number that is not negative; None for anything else (-1 is the kernel's "unknown")."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def parse_speed_bps(text: str | None) -> int | None:
    """Bits a second of ``speed``, which is in Mbit/s. Drivers say -1, 0 or 2**32 - 1 for unknown
    (SPEED_UNKNOWN of ethtool, cast by some)."""
    speed = parse_count(text)
    return speed * 1_000_000 if speed and speed < 2**31 - 1 else None


def fastest_bps(interfaces: Value) -> int | None:
    """The speed of the fastest physical link that is up; None where none says its speed."""
    speeds = [
        entry["speed_bps"]
        for entry in interfaces
        if entry["speed_bps"] and entry["state"] == "up" and entry["kind"] != "loopback"
    ]
    return max(speeds, default=None)


def ask(machine: Machine) -> Value:
    return [
        _interface(machine, name)
        for name in machine.list(NETWORK)
        if machine.exists(f"{NETWORK}/{name}/type")  # bonding_masters is a file beside them
    ]


def _interface(machine: Machine, name: str) -> dict[str, Value]:
    base = f"{NETWORK}/{name}"
    kind = parse_count(machine.read_if_there(f"{base}/type"))
    return {
        "name": name,
        "kind": KINDS.get(kind, f"type {kind}") if kind is not None else None,
        "state": machine.read_if_there(f"{base}/operstate"),
        "mtu_bytes": parse_count(machine.read_if_there(f"{base}/mtu")),
        "speed_bps": parse_speed_bps(machine.read_if_there(f"{base}/speed")),
        "mac": machine.read_if_there(f"{base}/address"),
        "numa_node": parse_count(machine.read_if_there(f"{base}/device/numa_node")),
        "driver": machine.link_name(f"{base}/device/driver"),
        "physical": machine.exists(f"{base}/device"),
    }

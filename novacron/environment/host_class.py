"""What a host's size is called, and what it lacks. Pure: numbers in, answers out."""

from __future__ import annotations

from novacron.record import Record
from novacron.units import GIB

CLASSES = ("below minimum", "minimum", "recommended", "enterprise")

CPUS = (4, 8, 32)
MEMORY_BYTES = (8 * GIB, 16 * GIB, 64 * GIB)
DISK_BYTES = (100 * GIB, 500 * GIB, 2048 * GIB)
NETWORK_BPS = (10**9, 10**10, 10**11)
"""Where minimum, recommended and enterprise begin. The minimum that is enforced is configured."""

ALLOWANCE = 0.07
"""How much less than its label a host may show. Firmware and kernel keep 2 to 5 % of the memory,
a file system 2 % of its device for itself, and disks are sold in powers of ten: without this a host
bought to the letter of the table would be refused."""


class Measured(Record):
    """What a node may use of its host; None where it could not be found out."""

    cpus: float | None = None
    """After affinity and cgroup quota, so perhaps 1.5."""
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    network_bps: int | None = None


class Minimum(Record):
    cpus: int
    memory_bytes: int
    disk_bytes: int


class Shortfall(Record):
    key: str
    text: str
    """``2 CPUs of 4``."""


def classify(measured: Measured) -> dict[str, str]:
    """The class by resource, and under ``host`` the lowest of them; ``unknown`` where not measured,
    which leaves the host's class to the others."""
    grades = {
        "cpus": _grade(measured.cpus, CPUS, 0.0),
        "memory": _grade(measured.memory_bytes, MEMORY_BYTES, ALLOWANCE),
        "disk": _grade(measured.disk_bytes, DISK_BYTES, ALLOWANCE),
        "network": _grade(measured.network_bps, NETWORK_BPS, 0.0),
    }
    known = [grade for grade in grades.values() if grade is not None]
    named = {name: "unknown" if g is None else CLASSES[g] for name, g in grades.items()}
    return {"host": CLASSES[min(known)] if known else "unknown", **named}


def shortfalls(measured: Measured, minimum: Minimum) -> list[Shortfall]:
    """Where the host has less than the minimum, beyond :data:`ALLOWANCE`. What was not measured is
    not held against it."""
    found = []
    if measured.cpus is not None and measured.cpus < minimum.cpus:
        found.append(Shortfall("resources.min_cpus", f"{measured.cpus:g} CPUs of {minimum.cpus}"))
    for key, what, have, need in (
        ("resources.min_memory_bytes", "memory", measured.memory_bytes, minimum.memory_bytes),
        ("resources.min_disk_bytes", "disk", measured.disk_bytes, minimum.disk_bytes),
    ):
        if have is not None and have < need * (1 - ALLOWANCE):
            found.append(Shortfall(key, f"{size(have)} of {size(need)} {what}"))
    return found


def size(count: int) -> str:
    """Bytes for people: ``7.6 GiB``."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _grade(have: float | None, steps: tuple[int, int, int], allowance: float) -> int | None:
    if have is None:
        return None
    return sum(have >= step * (1 - allowance) for step in steps)

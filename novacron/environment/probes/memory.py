"""Memory and huge pages, from ``/proc/meminfo``."""

from __future__ import annotations

from novacron.environment.fact import FactUnknownError, Value
from novacron.environment.machine import Machine


def parse_meminfo(text: str) -> dict[str, int]:
    """Fields of ``/proc/meminfo``: bytes where it says kB, else plain counts.

    Lines that have another shape are passed over: the file grows with the kernel.
    """
    fields: dict[str, int] = {}
    for line in text.splitlines():
        key, separator, rest = line.partition(":")
        words = rest.split()
        if not separator or not words or not (words[0].isascii() and words[0].isdigit()):
            continue
        if len(words[0]) > 18:
            continue
        fields[key.strip()] = int(words[0]) * (1024 if words[1:2] == ["kB"] else 1)
    return fields


def total_bytes(machine: Machine) -> int:
    """Memory the kernel manages; a little less than what is installed.

    Raises:
      FactUnknownError: ``/proc/meminfo`` has no MemTotal.
      OSError: it cannot be read.
    """
    total = parse_meminfo(machine.read("/proc/meminfo")).get("MemTotal")
    if not total:
        raise FactUnknownError("/proc/meminfo has no MemTotal")
    return total


def ask(machine: Machine) -> Value:
    fields = parse_meminfo(machine.read("/proc/meminfo"))
    if not fields.get("MemTotal"):
        raise FactUnknownError("/proc/meminfo has no MemTotal")
    return {
        "total_bytes": fields["MemTotal"],
        "available_bytes": fields.get("MemAvailable"),
        "swap_total_bytes": fields.get("SwapTotal"),
        "swap_free_bytes": fields.get("SwapFree"),
        "huge_page_bytes": fields.get("Hugepagesize"),
        "huge_pages_total": fields.get("HugePages_Total"),
        "huge_pages_free": fields.get("HugePages_Free"),
    }

"""CPUs: how many there are, how many this process may use, what they can do."""

from __future__ import annotations

import os

from novacron.environment.fact import FactUnknownError, Value
from novacron.environment.machine import Machine

FLAGS = frozenset({"vmx", "svm", "hypervisor", "aes", "avx2", "avx512f", "sha_ni", "amx_tile"})
"""Those something here depends on: virtualisation, encryption, encoding, learning."""


def parse_cpuinfo(text: str) -> dict[str, Value]:
    """Model, physical cores, sockets and flags of ``/proc/cpuinfo``; None for what it lacks.

    Other architectures than x86 name other fields, or none: nothing is required.
    """
    model: str | None = None
    flags: set[str] = set()
    cores: set[tuple[str, str]] = set()
    sockets: set[str] = set()
    socket = ""
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        if not separator:
            socket = ""
        elif key == "model name" and model is None:
            model = value
        elif key == "physical id":
            socket = value
            sockets.add(value)
        elif key == "core id":
            cores.add((socket, value))
        elif key in ("flags", "features") and not flags:
            flags.update(value.split())
    return {
        "model": model,
        "cores": len(cores) or None,
        "sockets": len(sockets) or None,
        "flags": sorted(flags & FLAGS),
    }


def parse_cpu_list(text: str) -> set[int]:
    """CPU numbers of the kernel's list format, ``0-3,8,10-11``.

    Raises:
      ValueError: not such a list, or one of more CPUs than Linux can have.
    """
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if not part.strip():
            continue
        first, separator, last = part.partition("-")
        low = int(first)
        high = int(last) if separator else low
        # 8192 is the largest NR_CPUS a kernel is built with; the bound keeps a damaged file from
        # filling the memory.
        if not 0 <= low <= high < 65536:
            raise ValueError(f"not a list of CPUs: {text!r}")
        cpus.update(range(low, high + 1))
    return cpus


def usable() -> int:
    """CPUs this process may run on, by affinity and cpuset (the kernel combines them)."""
    return len(os.sched_getaffinity(0))


def ask(machine: Machine) -> Value:
    info = parse_cpuinfo(machine.read("/proc/cpuinfo"))
    online = machine.read_if_there("/sys/devices/system/cpu/online")
    count = len(parse_cpu_list(online)) if online else os.cpu_count()
    if not count:
        raise FactUnknownError("the kernel does not say how many CPUs there are")
    return {"online": count, "usable": usable(), **info}

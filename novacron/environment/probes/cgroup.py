"""Limits of the control groups this process is in, version 1, version 2 and both at once.

A limit holds for a group and everything below it, so the effective one is the smallest on the way
up to the mount. Inside a container the mount shows only the container's own groups: limits above
cannot be seen, and do not show up in any file either.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from novacron.environment.fact import Value
from novacron.environment.machine import Machine
from novacron.environment.probes.cpu import parse_cpu_list
from novacron.environment.probes.mounts import Mount, parse_mountinfo
from novacron.record import Record

NO_LIMIT_BYTES = 2**62
"""Version 1 writes "no limit" as the largest page-aligned signed 64-bit number, whose exact value
depends on the page size; no host has half of that."""


class Limits(Record):
    """What the groups allow; None where they do not limit, or the controller is not there."""

    cpus: float | None
    memory_bytes: int | None
    pids: int | None
    cpuset: int | None
    """CPUs in the group's cpuset; the affinity of the process already honours it."""
    versions: tuple[int, ...]
    """1, 2, or both on a hybrid host."""
    path: str
    """The group of the memory controller, for messages; empty without one."""


class Membership(Record):
    controllers: frozenset[str]
    """Empty for version 2."""
    path: str


def parse_membership(text: str) -> list[Membership]:
    """Lines of ``/proc/self/cgroup``; those of another shape are passed over."""
    found = []
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[0].isdigit() and parts[2].startswith("/"):
            controllers = frozenset(parts[1].split(",")) - {""}
            found.append(Membership(controllers, parts[2]))
    return found


def parse_limit(text: str | None) -> int | None:
    """A byte or process count; None for ``max``, -1, the version 1 "no limit", or no file.

    Raises:
      ValueError: something else, which must not be taken for "no limit".
    """
    text = (text or "").strip()
    if text in ("", "max", "-1"):
        return None
    value = _number(text)
    return value if value < NO_LIMIT_BYTES else None


def parse_cpu_max(text: str | None) -> float | None:
    """CPUs of version 2's ``cpu.max``: ``max 100000`` or ``150000 100000``.

    Raises:
      ValueError: the text has another shape.
    """
    words = (text or "").split()
    if not words or words[0] == "max":
        return None
    return _quota(_number(words[0]), _number(words[1]) if len(words) > 1 else 100_000)


def parse_cpu_quota(quota: str | None, period: str | None) -> float | None:
    """CPUs of version 1's ``cpu.cfs_quota_us`` (-1: no limit) and ``cpu.cfs_period_us``.

    Raises:
      ValueError: the text has another shape.
    """
    quota, period = (quota or "").strip(), (period or "").strip()
    if quota in ("", "-1") or not period:
        return None
    return _quota(_number(quota), _number(period))


def directories(path: str, mount: Mount) -> list[str]:
    """Where a group's files are, the group first, then its parents up to the mount.

    *path* is relative to the reader's cgroup namespace, the mount's root too. A group outside of
    what is mounted (``/../..``, or another container's) leaves only the mount itself.
    """
    path, root = posixpath.normpath(path), posixpath.normpath(mount.root)
    if root != "/":
        inside = path == root or path.startswith(root + "/")
        path = path[len(root) :] if inside else "/"
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        parts = []
    return [posixpath.join(mount.point, *parts[:count]) for count in range(len(parts), -1, -1)]


def limits(machine: Machine) -> Limits:
    """The effective limits of this process.

    Raises:
      OSError, ValueError: a file cannot be read or understood. A limit that may be there must not
        be reported as none.
    """
    memberships = parse_membership(machine.read("/proc/self/cgroup"))
    mounts = parse_mountinfo(machine.read("/proc/self/mountinfo"))
    groups = dict(_groups(memberships, mounts))
    cpu, memory = groups.get("cpu", []), groups.get("memory", [])
    pids, cpuset = groups.get("pids", []), groups.get("cpuset", [])
    unified = groups.get("", [])

    def each(where: list[str], name: str) -> Iterator[str | None]:
        return (machine.read_if_there(f"{path}/{name}") for path in where)

    cpus = [parse_cpu_max(text) for text in each(unified, "cpu.max")]
    cpus += [
        parse_cpu_quota(quota, period)
        for quota, period in zip(
            each(cpu, "cpu.cfs_quota_us"), each(cpu, "cpu.cfs_period_us"), strict=True
        )
    ]
    sizes = [parse_limit(text) for text in each(unified, "memory.max")]
    sizes += [parse_limit(text) for text in each(memory, "memory.limit_in_bytes")]
    counts = [parse_limit(text) for text in each(unified + pids, "pids.max")]
    sets = [*each(unified[:1], "cpuset.cpus.effective")]
    sets += each(cpuset[:1], "cpuset.effective_cpus")
    sets += each(cpuset[:1], "cpuset.cpus")
    named = next((text for text in sets if text), None)
    home = memory or unified
    return Limits(
        min((value for value in cpus if value is not None), default=None),
        min((value for value in sizes if value is not None), default=None),
        min((value for value in counts if value is not None), default=None),
        len(parse_cpu_list(named)) if named else None,
        tuple(
            version
            for version, there in ((1, bool(groups.keys() - {""})), (2, bool(unified)))
            if there
        ),
        home[0] if home else "",
    )


def ask(machine: Machine) -> Value:
    found = limits(machine)
    return {
        "versions": list(found.versions),
        "path": found.path,
        "cpus": found.cpus,
        "memory_bytes": found.memory_bytes,
        "pids": found.pids,
        "cpuset": found.cpuset,
    }


def _groups(memberships: list[Membership], mounts: list[Mount]) -> Iterator[tuple[str, list[str]]]:
    """Each controller with the directories of its group; version 2 under the empty name."""
    for membership in memberships:
        for mount in mounts:
            if not membership.controllers:
                if mount.kind == "cgroup2":
                    yield "", directories(membership.path, mount)
                    break
            elif mount.kind == "cgroup" and membership.controllers <= mount.options:
                for controller in membership.controllers:
                    yield controller, directories(membership.path, mount)
                break


def _quota(quota: int, period: int) -> float:
    if period <= 0 or quota <= 0:
        raise ValueError(f"not a CPU quota: {quota} of {period}")
    return quota / period


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"not a number: {text[:40]!r}")
    return int(text)

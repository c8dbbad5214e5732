"""The file system of the data directory."""

from __future__ import annotations

import os

from novacron.environment.fact import Value
from novacron.environment.machine import Machine
from novacron.environment.probes.mounts import mount_of, parse_mountinfo
from novacron.record import Record


class Space(Record):
    total_bytes: int
    free_bytes: int
    """As ``df`` shows it: without the reserve for root, also for root. Whoever fills that up takes
    the system down with the node."""
    free_inodes: int | None
    """None where the file system makes inodes as needed (btrfs)."""
    read_only: bool
    device: int


def measure(path: str) -> Space:
    """The space of the file system that *path*, or its nearest existing parent, lies on.

    Blocks for as long as the file system does.

    Raises:
      OSError: the file system does not answer.
    """
    path = nearest(path)
    status = os.statvfs(path)
    return Space(
        status.f_blocks * status.f_frsize,
        status.f_bavail * status.f_frsize,
        status.f_favail if status.f_files else None,
        bool(status.f_flag & os.ST_RDONLY),
        os.stat(path).st_dev,
    )


def nearest(path: str) -> str:
    """*path* or its first parent that exists, resolved."""
    path = os.path.realpath(path)
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def ask(machine: Machine) -> Value:
    space = measure(machine.data_directory)
    path = nearest(machine.data_directory)
    mount = mount_of(path, parse_mountinfo(machine.read("/proc/self/mountinfo")))
    return {
        "path": machine.data_directory,
        "total_bytes": space.total_bytes,
        "free_bytes": space.free_bytes,
        "free_inodes": space.free_inodes,
        "read_only": space.read_only,
        "file_system": mount.kind if mount else None,
        "source": mount.source if mount else None,
        "mount_point": mount.point if mount else None,
        "rotational": _rotational(machine, space.device),
    }


def _rotational(machine: Machine, device: int) -> bool | None:
    base = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    # A partition has no queue of its own; its parent directory is the whole disk.
    for path in (f"{base}/queue/rotational", f"{base}/../queue/rotational"):
        text = machine.read_if_there(path)
        if text in ("0", "1"):
            return text == "1"
    return None

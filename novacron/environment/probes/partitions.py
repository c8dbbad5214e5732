"""Every mounted file system on a device, through psutil.

Asking an unreachable network file system for its size hangs, which is why only local devices are
asked and why this probe has a deadline like all others.
"""

from __future__ import annotations

from novacron.environment.fact import Value
from novacron.environment.machine import Machine


def ask(machine: Machine) -> Value:
    # About 10 ms of imports, so only when asked; the node does not wait for this probe.
    import psutil

    seen: dict[str, dict[str, Value]] = {}
    for partition in psutil.disk_partitions(all=False):
        if partition.device in seen:
            # A bind mount: the same file system under a second name.
            continue
        try:
            usage = psutil.disk_usage(partition.mountpoint)
        except OSError:
            # Somebody else's FUSE mount, say: it is there, and its size is not for us to know.
            usage = None
        seen[partition.device] = {
            "device": partition.device,
            "mount_point": partition.mountpoint,
            "file_system": partition.fstype,
            "read_only": "ro" in partition.opts.split(","),
            "total_bytes": usage.total if usage else None,
            "free_bytes": usage.free if usage else None,
        }
    return {"partitions": list(seen.values())}

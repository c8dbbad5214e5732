"""Who holds a port, for the message when it is taken. Linux; reads /proc and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

_LISTEN = "0A"


def find_port_holder(port: int, proc: Path = Path("/proc")) -> str:
    """``"pid 4711 (nginx)"``, or an empty string when it cannot be told: processes of other users
    show their descriptors to root alone. Walks all of /proc: call it in a worker thread, and only
    when something failed."""
    inodes = _listening_inodes(port, proc)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue  # ended meanwhile, or another user's
        for descriptor in descriptors:
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target in wanted:
                return f"pid {process.name} ({_name(process)})"
    return ""


def _listening_inodes(port: int, proc: Path) -> set[str]:
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if (
                len(columns) > 9
                and columns[3] == _LISTEN
                and int(columns[1].rpartition(":")[2], 16) == port
            ):
                found.add(columns[9])
    return found


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "unknown"

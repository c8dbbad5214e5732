"""Kernel and distribution."""

from __future__ import annotations

import os

from novacron.environment.fact import Value
from novacron.environment.machine import Machine


def parse_os_release(text: str) -> dict[str, str]:
    """Fields of ``os-release(5)``, unquoted; lines of another shape are passed over."""
    fields = {}
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and key and not key.startswith("#"):
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            fields[key] = value
    return fields


def parse_uptime(text: str) -> float | None:
    words = text.split()
    try:
        return float(words[0]) if words else None
    except ValueError:
        return None


def ask(machine: Machine) -> Value:
    name = os.uname()
    release = parse_os_release(machine.read_if_there("/etc/os-release") or "")
    return {
        "system": name.sysname,
        "release": name.release,
        "version": name.version,
        "architecture": name.machine,
        "hostname": name.nodename,
        "distribution": release.get("PRETTY_NAME") or release.get("NAME"),
        "page_bytes": os.sysconf("SC_PAGESIZE"),
        "uptime_seconds": parse_uptime(machine.read_if_there("/proc/uptime") or ""),
    }

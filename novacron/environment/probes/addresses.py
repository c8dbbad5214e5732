"""Addresses of the network interfaces, through psutil (the standard library cannot list them)."""

from __future__ import annotations

import socket

from novacron.environment.fact import Value
from novacron.environment.machine import Machine

FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}


def ask(machine: Machine) -> Value:
    # About 10 ms of imports, so only when asked; the node does not wait for this probe.
    import psutil

    return {
        name: [
            {
                "family": FAMILIES[socket.AddressFamily(entry.family)],
                # "fe80::1%eth0": the zone is the interface we list it under.
                "address": entry.address.partition("%")[0],
                "netmask": entry.netmask,
            }
            for entry in entries
            if entry.family in FAMILIES
        ]
        for name, entries in sorted(psutil.net_if_addrs().items())
    }

"""The questions a node asks its machine. Each module reads with small pure parsers and one ``ask``."""

from __future__ import annotations

from novacron.environment.fact import Probe
from novacron.environment.probes import (
    addresses,
    cgroup,
    clock,
    congestion,
    container,
    cpu,
    disk,
    interfaces,
    kernel,
    memory,
    numa,
    partitions,
    rdma,
    virtualisation,
)

PROBES = (
    Probe("cpu", cpu.ask),
    Probe("numa", numa.ask),
    Probe("memory", memory.ask),
    Probe("disk", disk.ask),
    Probe("cgroup", cgroup.ask),
    Probe("interfaces", interfaces.ask),
    Probe("rdma", rdma.ask),
    Probe("tcp_congestion", congestion.ask),
    Probe("kernel", kernel.ask),
    Probe("virtualisation", virtualisation.ask),
    Probe("container", container.ask),
    Probe("clock", clock.ask),
    Probe("addresses", addresses.ask, patient=True),
    Probe("partitions", partitions.ask, patient=True),
)
"""In the order facts are shown. ``docs/reference/environment.md`` describes each."""

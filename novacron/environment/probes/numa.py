"""Memory nodes and the CPUs beside them."""

from __future__ import annotations

from novacron.environment.fact import Value
from novacron.environment.machine import Machine
from novacron.environment.probes.cpu import parse_cpu_list
from novacron.environment.probes.memory import parse_meminfo

NODES = "/sys/devices/system/node"


def ask(machine: Machine) -> Value:
    nodes = []
    for name in machine.list(NODES):
        if not name.startswith("node") or not name[4:].isdigit():
            continue
        cpus = machine.read_if_there(f"{NODES}/{name}/cpulist")
        memory = machine.read_if_there(f"{NODES}/{name}/meminfo")
        nodes.append(
            {
                "node": int(name[4:]),
                "cpus": sorted(parse_cpu_list(cpus)) if cpus else [],
                "memory_bytes": _total(memory) if memory else None,
            }
        )
    return {"nodes": sorted(nodes, key=lambda node: node["node"])}


def _total(text: str) -> int | None:
    # "Node 0 MemTotal:  16384 kB": the same format as /proc/meminfo behind two more words.
    lines = (" ".join(line.split()[2:]) for line in text.splitlines())
    return parse_meminfo("\n".join(lines)).get("MemTotal")

"""TCP congestion control: what the kernel has, what everybody may use, what this node may use."""

from __future__ import annotations

from novacron._native import tcp
from novacron.environment.fact import Value
from novacron.environment.machine import Machine


def ask(machine: Machine) -> Value:
    available = tcp.available()
    return {
        "available": list(available),
        "allowed": list(tcp.allowed()),
        # Asked of the kernel and not derived: a privileged process may choose what is not in the
        # allowed list, and a BPF program may refuse what is.
        "permitted": [name for name in available if tcp.permitted(name)],
        "default": tcp.default(),
    }

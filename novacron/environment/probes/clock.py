"""Whether the clock is synchronised, as the kernel was told by the time service."""

from __future__ import annotations

from novacron._native import clock
from novacron.environment.fact import Value
from novacron.environment.machine import Machine

SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


def ask(machine: Machine) -> Value:
    state = clock.read()
    return {
        **state._asdict(),
        "source": machine.read_if_there(SOURCE),
    }

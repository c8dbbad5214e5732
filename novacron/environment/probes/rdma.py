"""RDMA devices, and where there is none, why."""

from __future__ import annotations

from novacron._native import verbs
from novacron._native.ffi import NativeUnavailableError, native
from novacron.environment.fact import FactUnknownError, Value
from novacron.environment.machine import Machine

DEVICES = "/sys/class/infiniband"


def ask(machine: Machine) -> Value:
    native()  # without the compiled module nothing can be said: unknown, for that reason
    try:
        found = verbs.devices()
    except NativeUnavailableError as exc:
        in_kernel = machine.list(DEVICES)
        if in_kernel:
            raise FactUnknownError(
                f"the kernel has RDMA devices ({', '.join(in_kernel)}) that cannot be used",
                why=exc.why,
                remedy="install libibverbs and the provider of the device "
                "(Debian: ibverbs-providers)",
            ) from exc
        return {"devices": [], "why_none": exc.why}
    return {
        "devices": [
            {
                "name": device.name,
                "guid": device.guid,
                "node_type": device.node_type,
                "numa_node": numa_node(machine, device.name),
                "ports": [port._asdict() for port in device.ports],
                "ports_reason": device.ports_reason,
            }
            for device in found
        ],
        "why_none": "",
    }


def numa_node(machine: Machine, name: str) -> int | None:
    """The memory node a device hangs on; None where there is one node only (-1 in sysfs)."""
    text = machine.read_if_there(f"{DEVICES}/{name}/device/numa_node")
    return int(text) if text and text.isascii() and text.isdigit() else None

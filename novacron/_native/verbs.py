"""RDMA devices, as libibverbs lists them."""

from __future__ import annotations

from novacron._native.ffi import Native, Pointer, native
from novacron.errors import NativeError
from novacron.record import Record

NODE_TYPES = {1: "ca", 2: "switch", 3: "router", 4: "rnic", 5: "usnic", 6: "usnic_udp"}
PORT_STATES = {0: "nop", 1: "down", 2: "init", 3: "armed", 4: "active", 5: "active_defer"}
LINK_LAYERS = {1: "infiniband", 2: "ethernet"}

MAX_PORTS = 255
"""``phys_port_cnt`` is one byte."""


class RdmaPort(Record):
    number: int
    state: str
    link_layer: str
    active_mtu_bytes: int
    speed_bps: int
    """0 where the device gives a width or speed code that is not known."""


class RdmaDevice(Record):
    name: str
    guid: str
    """Sixteen hexadecimal digits in groups of four, as ``ibv_devices`` prints it."""
    node_type: str
    sysfs_path: str
    ports: tuple[RdmaPort, ...]
    ports_reason: str
    """Why the ports could not be asked; empty where they could."""


def devices(library: str | None = None) -> tuple[RdmaDevice, ...]:
    """Every RDMA device, with its ports where it can be opened. Blocks for as long as the drivers
    do, which is seconds on a device in trouble: call it in a worker thread.

    Args:
      library: File or soname to load instead of ``libibverbs.so.1``.

    Raises:
      NativeUnavailableError: no compiled module, no libibverbs, no RDMA in the kernel, or no device.
      NativeDeniedError: this process may not look.
    """
    loaded = native()
    error = loaded.new_error()
    handle = loaded.ffi.new("struct nc_verbs **")
    soname = loaded.ffi.NULL if library is None else library.encode()
    code = loaded.lib.nc_verbs_open(soname, handle, error)
    loaded.check(code, error, "there is no RDMA here")
    verbs = handle[0]
    try:
        return tuple(_device(loaded, verbs, i) for i in range(loaded.lib.nc_verbs_count(verbs)))
    finally:
        loaded.lib.nc_verbs_close(verbs)


def _device(loaded: Native, verbs: Pointer, index: int) -> RdmaDevice:
    error = loaded.new_error()
    device = loaded.ffi.new("struct nc_verbs_device *")
    code = loaded.lib.nc_verbs_device(verbs, index, device, error)
    loaded.check(code, error, f"cannot describe RDMA device {index}")
    try:
        ports, reason = _ports(loaded, verbs, index), ""
    except NativeError as exc:
        # The device is a fact although its ports are not: /dev/infiniband may be closed to us.
        ports, reason = (), str(exc)
    digits = f"{device.guid:016x}"
    return RdmaDevice(
        loaded.text(device.name),
        ":".join(digits[i : i + 4] for i in range(0, 16, 4)),
        NODE_TYPES.get(device.node_type, f"type {device.node_type}"),
        loaded.text(device.sysfs_path),
        ports,
        reason,
    )


def _ports(loaded: Native, verbs: Pointer, index: int) -> tuple[RdmaPort, ...]:
    error = loaded.new_error()
    ports = loaded.ffi.new("struct nc_verbs_port[]", MAX_PORTS)
    count = loaded.ffi.new("size_t *")
    code = loaded.lib.nc_verbs_ports(verbs, index, ports, MAX_PORTS, count, error)
    loaded.check(code, error, "cannot ask the RDMA device's ports")
    return tuple(
        RdmaPort(
            port.number,
            PORT_STATES.get(port.state, f"state {port.state}"),
            LINK_LAYERS.get(port.link_layer, f"layer {port.link_layer}"),
            port.active_mtu,
            port.speed_bps,
        )
        for port in (ports[i] for i in range(min(count[0], MAX_PORTS)))
    )

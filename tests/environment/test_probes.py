from __future__ import annotations

import json
import os
import socket

import psutil
import pytest

from novacron._native.ffi import NativeDeniedError, NativeUnavailableError
from novacron.environment.fact import FactUnknownError
from novacron.environment.machine import Machine
from novacron.environment.probes import (
    PROBES,
    addresses,
    container,
    cpu,
    disk,
    interfaces,
    memory,
    numa,
    partitions,
    rdma,
    virtualisation,
)
from tests.environment.conftest import Tree


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: str(probe.name))
def test_this_machine_answers_in_json(probe: object) -> None:
    value = probe.ask(Machine(data_directory="/"))  # type: ignore[attr-defined]
    assert json.loads(json.dumps(value)) == value


def test_the_figures_are_those_of_psutil() -> None:
    machine = Machine(data_directory="/")
    assert memory.ask(machine)["total_bytes"] == psutil.virtual_memory().total
    assert disk.ask(machine)["total_bytes"] == psutil.disk_usage("/").total
    assert cpu.ask(machine)["online"] == psutil.cpu_count()
    assert cpu.ask(machine)["usable"] == len(os.sched_getaffinity(0))
    assert {entry["name"] for entry in interfaces.ask(machine)} == set(psutil.net_if_stats())


def test_loopback_has_its_address_and_no_speed() -> None:
    found = addresses.ask(Machine())
    assert "127.0.0.1" in [entry["address"] for entry in found["lo"]]
    assert all(
        entry["address"]
        == socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, entry["address"]))
        for entries in found.values()
        for entry in entries
        if entry["family"] == "ipv6"
    )
    loopback = next(entry for entry in interfaces.ask(Machine()) if entry["name"] == "lo")
    assert loopback["kind"] == "loopback"
    assert loopback["speed_bps"] is None


def test_a_partition_that_may_not_be_asked_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(psutil, "disk_usage", refuse)
    found = partitions.ask(Machine())["partitions"]
    assert all(entry["total_bytes"] is None for entry in found)


def test_an_interface_is_described_from_its_attributes(tree: Tree) -> None:
    base = "/sys/class/net/eth7"
    for name, text in {
        "type": "1",
        "operstate": "up",
        "mtu": "9000",
        "speed": "25000",
        "address": "02:00:00:00:00:01",
        "device/numa_node": "1",
    }.items():
        tree.put(f"{base}/{name}", text + "\n")
    tree.link(f"{base}/device/driver", "../../../bus/pci/drivers/mlx5_core")
    tree.put("/sys/class/net/bonding_masters", "")
    assert interfaces.ask(tree.machine) == [
        {
            "name": "eth7",
            "kind": "ethernet",
            "state": "up",
            "mtu_bytes": 9000,
            "speed_bps": 25_000_000_000,
            "mac": "02:00:00:00:00:01",
            "numa_node": 1,
            "driver": "mlx5_core",
            "physical": True,
        }
    ]


def test_the_fastest_link_is_one_that_is_up_and_says_its_speed() -> None:
    def link(state: str, speed: int | None, kind: str = "ethernet") -> dict[str, object]:
        return {"state": state, "speed_bps": speed, "kind": kind}

    links = [
        link("up", 10**9),
        link("down", 10**11),
        link("up", None),
        link("up", 10**12, "loopback"),
    ]
    assert interfaces.fastest_bps(links) == 10**9
    assert interfaces.fastest_bps([link("up", None)]) is None


def test_memory_nodes_have_their_cpus_and_memory(tree: Tree) -> None:
    for node, cpus in ((0, "0-1"), (1, "2-3"), (10, "")):
        tree.put(f"/sys/devices/system/node/node{node}/cpulist", cpus + "\n")
        tree.put(
            f"/sys/devices/system/node/node{node}/meminfo",
            f"Node {node} MemTotal:       1024 kB\nNode {node} MemFree: 1 kB\n",
        )
    tree.put("/sys/devices/system/node/online", "0-1,10")
    nodes = numa.ask(tree.machine)["nodes"]
    assert [node["node"] for node in nodes] == [0, 1, 10]
    assert [node["cpus"] for node in nodes] == [[0, 1], [2, 3], []]
    assert {node["memory_bytes"] for node in nodes} == {1024 * 1024}


def test_memory_without_a_total_is_unknown(tree: Tree) -> None:
    tree.put("/proc/meminfo", "MemFree: 1 kB\n")
    with pytest.raises(FactUnknownError, match="no MemTotal"):
        memory.ask(tree.machine)


def guess(*dmi: str, flag: bool = True, kind: str | None = None, dom0: bool = False) -> str:
    return virtualisation.classify(
        dmi=list(dmi), hypervisor_flag=flag, hypervisor_type=kind, privileged_xen=dom0
    )[0]


def test_the_hypervisor_is_told_by_firmware_then_type_then_cpu() -> None:
    assert guess("Standard PC", "QEMU") == "qemu"
    assert guess("KVM", "Red Hat") == "kvm"
    assert guess("VMware Virtual Platform") == "vmware"
    assert guess("Virtual Machine", "Microsoft Corporation") == "microsoft"
    assert guess("Surface", "Microsoft Corporation", flag=False) == "none"
    assert guess("m5.large", "Amazon EC2") == "amazon"
    assert guess("m5.metal", "Amazon EC2", flag=False) == "none"
    assert guess("HVM domU", "Xen") == "xen"
    assert guess("HVM domU", "Xen", dom0=True) == "none"
    assert guess(kind="xen") == "xen"
    assert guess() == "other"
    assert guess("PowerEdge R740", "Dell Inc.", flag=False) == "none"


def contained(
    manager: str | None = None,
    *marks: str,
    release: str = "6.1.0-amd64",
    **variables: str,
) -> str:
    return container.classify(
        manager=manager,
        marks=dict.fromkeys(marks, True),
        release=release,
        variables=variables,
    )[0]


def test_the_container_is_told_by_what_its_manager_leaves() -> None:
    assert contained() == "none"
    assert contained(None, "/.dockerenv") == "docker"
    assert contained(None, "/run/.containerenv", "/.dockerenv") == "podman"
    assert contained("systemd-nspawn") == "systemd-nspawn"
    assert contained(container="lxc") == "lxc"
    assert contained(None, "/.dockerenv", KUBERNETES_SERVICE_HOST="10.0.0.1") == "kubernetes"
    assert contained(None, "/proc/vz") == "openvz"
    assert contained(None, "/proc/vz", "/proc/bc") == "none"
    assert contained(release="5.15.90.1-microsoft-standard-WSL2") == "wsl"


def test_no_rdma_is_a_fact_with_its_reason(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> object:
        raise NativeUnavailableError("there is no RDMA here", why="libibverbs lists no device")

    monkeypatch.setattr("novacron._native.verbs.devices", none)
    assert rdma.ask(tree.machine) == {"devices": [], "why_none": "libibverbs lists no device"}


def test_devices_in_the_kernel_that_cannot_be_used_are_not_reported_as_none(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> object:
        raise NativeUnavailableError("there is no RDMA here", why="libibverbs.so.1: not found")

    tree.put("/sys/class/infiniband/mlx5_0/node_type")
    monkeypatch.setattr("novacron._native.verbs.devices", none)
    with pytest.raises(FactUnknownError, match=r"mlx5_0.*not found.*Install libibverbs"):
        rdma.ask(tree.machine)


def test_rdma_that_may_not_be_looked_at_is_unknown(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied() -> object:
        raise NativeDeniedError("there is no RDMA here", why="ibv_get_device_list failed")

    monkeypatch.setattr("novacron._native.verbs.devices", denied)
    with pytest.raises(NativeDeniedError):
        rdma.ask(tree.machine)

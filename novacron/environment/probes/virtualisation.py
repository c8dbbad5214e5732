"""Which hypervisor this machine runs on, and whether it can run guests itself.

The order follows what ``systemd-detect-virt`` found out the hard way: firmware names first, since a
nested or enlightened guest shows the CPU signature of another hypervisor.
"""

from __future__ import annotations

import os

from novacron.environment.fact import Value
from novacron.environment.machine import Machine
from novacron.environment.probes.cpu import parse_cpuinfo

DMI = "/sys/class/dmi/id"
DMI_FILES = ("product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version")

VENDORS = (
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Apple Virtualization", "apple"),
)
"""Starts of a firmware field, and what they mean. A table, because vendors are data."""


def classify(
    *, dmi: list[str], hypervisor_flag: bool, hypervisor_type: str | None, privileged_xen: bool
) -> tuple[str, str]:
    """The kind of machine and what gave it away.

    ``none`` means bare metal; ``other`` a hypervisor that does not say its name.
    """
    if privileged_xen:
        return "none", "xen control domain"
    for field in dmi:
        for start, kind in VENDORS:
            if field.startswith(start):
                # EC2 and GCE bare metal carry the same names; only guests have the CPU flag.
                if kind in ("amazon", "google") and not hypervisor_flag:
                    return "none", "dmi"
                return kind, "dmi"
    # Hyper-V hides behind Microsoft's name, which Surface hardware carries too.
    if any(field.startswith("Microsoft Corporation") for field in dmi) and hypervisor_flag:
        return "microsoft", "dmi"
    if hypervisor_type:
        return hypervisor_type, "/sys/hypervisor"
    if hypervisor_flag:
        return "other", "cpu flag"
    return "none", ""


def ask(machine: Machine) -> Value:
    flags = parse_cpuinfo(machine.read("/proc/cpuinfo"))["flags"]
    fields = [machine.read_if_there(f"{DMI}/{name}") for name in DMI_FILES]
    kind, source = classify(
        dmi=[field for field in fields if field],
        hypervisor_flag="hypervisor" in flags,
        hypervisor_type=machine.read_if_there("/sys/hypervisor/type"),
        privileged_xen="control_d" in (machine.read_if_there("/proc/xen/capabilities") or ""),
    )
    return {
        "kind": kind,
        "source": source,
        "cpu_extensions": bool({"vmx", "svm"} & set(flags)),
        "kvm": os.access(machine.path("/dev/kvm"), os.R_OK | os.W_OK),
    }

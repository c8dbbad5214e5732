"""Whether this process runs in a container, and in which kind."""

from __future__ import annotations

from collections.abc import Mapping
from os import environ

from novacron.environment.fact import Value
from novacron.environment.machine import Machine

MANAGER = "/run/host/container-manager"
"""Where container managers leave their name (systemd's container interface)."""


def classify(
    *, manager: str | None, marks: Mapping[str, bool], release: str, variables: Mapping[str, str]
) -> tuple[str, str]:
    """The kind of container and what gave it away; ``none`` outside of one.

    Kubernetes comes first: inside a pod the runtime's marks are there as well, and say less.
    """
    if variables.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes", "KUBERNETES_SERVICE_HOST"
    if manager:
        return manager, MANAGER
    if variables.get("container"):
        return variables["container"], "container variable"
    for path, kind in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        if marks.get(path):
            return kind, path
    if marks.get("/proc/vz") and not marks.get("/proc/bc"):
        return "openvz", "/proc/vz"
    if "microsoft" in release.lower():
        return "wsl", "kernel release"
    return "none", ""


def ask(machine: Machine) -> Value:
    paths = ("/run/.containerenv", "/.dockerenv", "/proc/vz", "/proc/bc")
    kind, source = classify(
        manager=machine.read_if_there(MANAGER),
        marks={path: machine.exists(path) for path in paths},
        release=machine.read_if_there("/proc/sys/kernel/osrelease") or "",
        variables=environ,
    )
    return {"kind": kind, "source": source}

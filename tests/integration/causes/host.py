"""The machine, and how the node was installed on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.integration.failing_node import REPOSITORY, Cause, Scene


def _strict(scene: Scene, key: str, value: int) -> None:
    scene.settings |= {
        "resources.enforce": "strict",
        "resources.min_cpus": "1",
        "resources.min_memory_bytes": "1",
        "resources.min_disk_bytes": str(64 * 1024**2),
    }
    scene.settings[key] = str(value)


def cpus(scene: Scene) -> None:
    _strict(scene, "resources.min_cpus", 4096)


def memory(scene: Scene) -> None:
    _strict(scene, "resources.min_memory_bytes", 1024**5)


def disk(scene: Scene) -> None:
    _strict(scene, "resources.min_disk_bytes", 1024**6)


def small_host(scene: Scene) -> None:
    cpus(scene)
    scene.settings["resources.enforce"] = "warn"


def small_host_with_file(scene: Scene) -> None:
    scene.configuration(
        "api: {port: 0}\nnetwork: {port: 0}\nmonitoring: {port: 0}\nresources:\n  min_cpus: 4096\n"
    )


def _copied(scene: Scene, *without: str) -> Path:
    """Have the node run from a copy of the package that the scene may break."""
    shutil.copytree(
        REPOSITORY / "novacron",
        scene.root / "novacron",
        # Bytecode that another process is just writing has a name of its own until it is whole.
        ignore=shutil.ignore_patterns("*.pyc.*", *without),
    )
    scene.package = scene.root
    return scene.root / "novacron"


def no_extension(scene: Scene) -> None:
    _copied(scene, "*.so")


def fault_of_our_own(scene: Scene) -> None:
    with (_copied(scene) / "network/component.py").open("a") as source:
        source.write(
            "\n\nasync def _broken(self, nursery):\n    raise KeyError('peers')\n\n\n"
            "Network.initialize = _broken\n"
        )


def extension_damaged(scene: Scene) -> None:
    no_extension(scene)
    (scene.root / "novacron/_native/_nc.abi3.so").write_bytes(b"\x7fELF" + bytes(200))


_LOWER = "use a larger host, lower {}, or set resources.enforce to warn"

CAUSES = (
    Cause(
        "too few processors",
        cpus,
        1,
        "this host is below the minimum",
        "CPUs of 4096",
        _LOWER.format("resources.min_cpus"),
        "resources.min_cpus",
    ),
    Cause(
        "too little memory",
        memory,
        1,
        "this host is below the minimum",
        "GiB of 1024.0 TiB memory",
        _LOWER.format("resources.min_memory_bytes"),
        "resources.min_memory_bytes",
    ),
    Cause(
        "too small a disk",
        disk,
        1,
        "this host is below the minimum",
        "of 1048576.0 TiB disk",
        _LOWER.format("resources.min_disk_bytes"),
        "resources.min_disk_bytes",
    ),
    Cause(
        "a small host that is accepted",
        small_host,
        0,
        "this host is below the minimum",
        "CPUs of 4096",
        "",
        "resources.min_cpus",
    ),
    Cause(
        "a small host with a configuration file",
        small_host_with_file,
        1,
        "this host is below the minimum",
        "CPUs of 4096",
        _LOWER.format("resources.min_cpus"),
        "resources.min_cpus",
    ),
    Cause(
        "the compiled part is missing",
        no_extension,
        3,
        "the compiled part of NovaCron (novacron._native._nc) cannot be used",
        "No module named 'novacron._native._nc'",
        "Run `make install` in the checkout, or install a wheel made for this platform",
    ),
    Cause(
        "the compiled part is damaged",
        extension_damaged,
        3,
        "the compiled part of NovaCron (novacron._native._nc) cannot be used",
        "_nc.abi3.so: ",
        "Run `make install` in the checkout",
    ),
)

"""The command line that boots the guest, and what it boots."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY = "2G"
"""Half of it is what the guest's memory file systems may hold each."""

CPUS = 2

STATUS_BASE = 100
"""Added to pytest's exit status, so that a status of the boot's own tools is not taken for one."""

HIDDEN = ("/dev", "/proc", "/run", "/sys", "/var/cache", "/var/log", "/var/tmp")
"""What the guest has of its own where the host has other things."""


@dataclass(frozen=True)
class Laboratory:
    """A prepared guest kernel, and the checkout whose tests it runs. Absolute paths."""

    checkout: Path
    python: Path
    image: Path
    modules: Path

    @property
    def version(self) -> str:
        return self.modules.name


class LaboratoryError(Exception):
    """The guest cannot be booted. The message says what to do."""


def find(checkout: Path) -> Laboratory:
    """The laboratory that ``make lab`` prepared in *checkout*.

    Raises:
      LaboratoryError: it did not, or the guest could not see the checkout.
    """
    if any(character.isspace() for character in str(checkout)):
        raise LaboratoryError(
            f"a kernel's command line carries no path with a blank, and this checkout has one: "
            f"{checkout}. Run the tests from a checkout elsewhere."
        )
    for folder in HIDDEN:
        if checkout.is_relative_to(folder):
            raise LaboratoryError(
                f"the guest has a {folder} of its own and would not see this checkout "
                f"({checkout}). Run the tests from a checkout elsewhere."
            )
    found = sorted(checkout.glob(".lab/kernel/lib/modules/*/modules.dep"))
    if not found:
        raise LaboratoryError("there is no guest kernel in .lab/. Prepare it: make lab")
    modules = found[-1].parent
    laboratory = Laboratory(
        checkout=checkout,
        python=checkout / ".venv/bin/python",
        image=checkout / f".lab/kernel/boot/vmlinuz-{modules.name}",
        modules=modules,
    )
    for path in (laboratory.image, laboratory.python, laboratory.python.parent / "vng"):
        if not path.exists():
            raise LaboratoryError(f"{path} is missing. Prepare the laboratory: make lab")
    return laboratory


def boot_command(laboratory: Laboratory, script: Path) -> list[str]:
    """The arguments that boot the guest, which runs the shell *script* and ends.

    Standard output is then the script's, standard error the guest's console.
    """
    # No KVM: behaviour is what is tested, and nested virtualisation that opens but stalls is common
    # on hosted machines. An oops means that nothing the guest says afterwards can be relied on.
    # The modules are linked by `enter`: with an empty directory instead, the boot spares the ten
    # seconds that loading a driver for every part of the emulated board and processor takes.
    append = "oops=panic virtme_link_mods=/var/empty"
    share = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
    return [
        str(laboratory.python.parent / "vng"),
        *("--run", str(laboratory.image)),
        "--disable-kvm",
        "--force-9p",
        *("--user", "root"),
        *("--name", "novacron-lab"),
        *("--cpus", str(CPUS)),
        *("--memory", MEMORY),
        "--verbose",
        *("--append", append),
        f"--qemu-opts=-virtfs {share}",
        *("--exec", f"sh {shlex.quote(str(script))}"),
    ]


def guest_script(laboratory: Laboratory, arguments: Sequence[str]) -> str:
    """The shell script that runs pytest with *arguments* in the guest, and ends with its exit
    status plus `STATUS_BASE`."""
    enter = laboratory.checkout / "tests/lab/machine/enter"
    command = [
        *("bash", str(enter), str(laboratory.checkout), str(laboratory.modules)),
        *("env", "LAB_GUEST=1", "CI=true", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"),
        *(str(laboratory.python), "-m", "pytest", *arguments),
    ]
    return f"{shlex.join(command)} 2>&1\nexit $(($? + {STATUS_BASE}))\n"

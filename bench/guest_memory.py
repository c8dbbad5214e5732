"""The memory of a small virtual machine that booted and did something: QEMU keeps it in a file."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.harness import ROOT, BenchError
from bench.log_text import log_text
from bench.processes import Measured, program

MEMORY_BYTES = 256 << 20
"""Of the guest: as much as a data set is long on the fast links."""
KERNELS = (ROOT / ".lab/kernel/boot", Path("/boot"))
"""Where ``make lab`` unpacks one, and where the machine's own stands."""
_READY = "the guest's memory is filled"
_BOOT_SECONDS = 120.0
"""An emulated processor on a busy machine needs a quarter of that."""
_PIECE = 256 * 1024
_LIBRARY_PIECES = 160
_LOG_PIECES = 12
_INIT = f"""#!/bin/busybox sh
bin=/bin/busybox
$bin mkdir -p /proc /sys /tmp
$bin mount -t proc proc /proc
$bin mount -t sysfs sysfs /sys
$bin mount -t tmpfs tmpfs /tmp
# Memory of processes that stay, text that was read and sorted, and pages that were free again.
$bin awk 'BEGIN {{ for (i = 0; i < 60000; i++) a[i] = i * i " record " i; while (1) system("{{0}}") }}' &
$bin cat /data/* | $bin md5sum >/tmp/sum
$bin head -c 4000000 /data/log | $bin sort >/tmp/sorted
$bin gzip -c /tmp/sorted >/tmp/sorted.gz
$bin rm /tmp/sorted.gz
echo "{_READY}" >/dev/console
while :; do $bin sleep 1000; done
""".replace("{0}", "/bin/busybox sleep 1000")


def kernel_image(given: Path | None = None) -> Path:
    """The kernel to boot: *given*, or the newest one that can be read.

    Raises:
      BenchError: there is none.
    """
    if given is not None:
        if not os.access(given, os.R_OK):
            raise BenchError(f"the kernel {given} cannot be read")
        return given
    for folder in KERNELS:
        found = [path for path in sorted(folder.glob("vmlinuz-*")) if os.access(path, os.R_OK)]
        if found:
            return found[-1]
    raise BenchError(f"no kernel in {KERNELS[0]} to boot a guest with (make lab, or --kernel FILE)")


def write(path: Path, content: Iterator[bytes], kernel: Path | None = None) -> None:
    """Boot a guest whose file system holds *content*, let it work, and leave its memory in *path*.

    Raises:
      BenchError: QEMU, a static busybox or a kernel is missing, or the guest did not come up.
    """
    qemu = program("qemu-system-x86_64", "qemu-system-x86")
    busybox = Path(program("busybox", "busybox-static"))
    image = kernel_image(kernel)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        initial = Path(folder, "initial")
        initial.write_bytes(_file_system(busybox, content))
        console = Path(folder, "console")
        memory = f"memory-backend-file,id=memory,size={MEMORY_BYTES},mem-path={path},share=on"
        command = [qemu, "-accel", "tcg", "-m", f"{MEMORY_BYTES >> 20}", "-nodefaults"]
        command += ["-machine", "pc,memory-backend=memory", "-object", memory, "-display", "none"]
        command += ["-serial", f"file:{console}", "-kernel", str(image), "-initrd", str(initial)]
        command += ["-append", "console=ttyS0 quiet panic=-1", "-no-reboot"]
        with Measured(command) as guest:
            give_up = time.monotonic() + _BOOT_SECONDS
            while not console.exists() or _READY not in console.read_text(errors="replace"):
                if guest.ended(0.1) or time.monotonic() > give_up:
                    said = console.read_text(errors="replace") if console.exists() else ""
                    raise BenchError(
                        f"the guest did not come up with {image}:\n{(guest.output() + said)[-2000:]}"
                    )


def _file_system(busybox: Path, content: Iterator[bytes]) -> bytes:
    """An initial file system in the kernel's format, uncompressed."""
    text = log_text(0)
    files = [
        ("bin", 0o40755, b""),
        ("data", 0o40755, b""),
        ("dev", 0o40755, b""),
        ("init", 0o100755, _INIT.encode()),
        ("bin/busybox", 0o100755, busybox.read_bytes()),
        ("data/log", 0o100644, b"".join(next(text) for _ in range(_LOG_PIECES))),
        *(
            (f"data/library{number}", 0o100644, next(content)[:_PIECE])
            for number in range(_LIBRARY_PIECES)
        ),
    ]
    parts = [_entry(number, *file) for number, file in enumerate(files, 1)]
    return b"".join([*parts, _entry(0, "TRAILER!!!", 0, b"")])


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One file of the "newc" archive that the kernel unpacks (its buffer-format.rst): thirteen
    fields of eight hexadecimal digits, the name and the bytes, both up to a multiple of four."""
    links = 2 if mode & 0o40000 else 1
    fields = [number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = ("070701" + "".join(f"{field:08X}" for field in fields)).encode() + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def available() -> bool:
    """Whether what a guest needs is here; it may still fail to boot."""
    try:
        kernel_image()
    except BenchError:
        return False
    return all(shutil.which(name) for name in ("qemu-system-x86_64", "busybox"))

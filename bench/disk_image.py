"""A file system's image, and the same image after some of its files were changed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.harness import BenchError
from bench.processes import program

_TIME = "1750000000"
"""All times within, so that the images are the same for the same content."""
_ID = "6f2d3c1e-58a4-4b0e-9a57-3d1f0c9b7e42"
_BLOCK = 4096
_FULL = 0.6
"""Of the image holds files at first."""
_CHANGED = 0.06
"""Of the files get other bytes, and half as many each go and come."""
_GROUP = 100
"""Files in a folder: they are of many sizes, so there may be many."""
_DEADLINE = 120.0


def write(first: Path, second: Path, size: int, content: Iterator[bytes], seed: int) -> str:
    """Version 1 and 2 of an ext4 image of *size* bytes with files of *content*; what was changed.

    Version 2 is version 1 after a system wrote to it, so that what stayed is where it was.

    Raises:
      BenchError: e2fsprogs is missing or failed.
    """
    make, change = program("mke2fs", "e2fsprogs"), program("debugfs", "e2fsprogs")
    draw = random.Random(f"image {seed}")
    with tempfile.TemporaryDirectory(dir=first.parent) as name:
        folder = Path(name)
        tree = folder / "tree"
        files = _files(tree, int(size * _FULL), draw, content)
        options = ["-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-U", _ID]
        # A journal would be a large part of the smallest image.
        options += ["-O", "^has_journal", "-E", f"hash_seed={_ID},root_owner=0:0"]
        _run([make, *options, "-d", str(tree), str(first), str(size // _BLOCK)])
        shutil.copyfile(first, second)
        script, note = _changes(folder, files, draw, content)
        (folder / "script").write_text(script)
        told = _run([change, "-w", "-f", str(folder / "script"), str(second)])
    # debugfs repeats its commands, and says what it could not do on the lines between.
    failed = [
        line for line in told.splitlines() if line and not line.startswith(("debugfs", "All"))
    ]
    failed = [line for line in failed if "Allocated inode" not in line]
    if failed:
        raise BenchError(f"debugfs could not change the image: {failed[0]}")
    return note


def _files(
    tree: Path, total: int, draw: random.Random, content: Iterator[bytes]
) -> list[tuple[str, int]]:
    """Fill *tree* with files of *total* bytes; their names within and sizes."""
    made: list[tuple[str, int]] = []
    most = max(2 * _BLOCK, min(1 << 20, total // 16))
    while total > 0:
        size = min(total, int(_BLOCK * (most / _BLOCK) ** draw.random()))
        name = f"folder{len(made) // _GROUP}/file{len(made)}"
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_bytes(content, size))
        os.utime(path, (int(_TIME), int(_TIME)))
        made.append((name, size))
        total -= size
    return made


def _changes(
    folder: Path, files: Sequence[tuple[str, int]], draw: random.Random, content: Iterator[bytes]
) -> tuple[str, str]:
    """What debugfs is to do, and that in words."""
    count = max(1, round(len(files) * _CHANGED))
    half = max(1, count // 2)
    chosen = draw.sample(files, min(len(files), count + half))
    lines = [f"rm /{name}" for name, _ in chosen]
    written = 0
    for number, (name, size) in enumerate(
        chosen[:count] + [("added", s) for _, s in chosen[count:]]
    ):
        place = f"added{number}" if name == "added" else name
        fresh = folder / f"fresh{number}"
        fresh.write_bytes(_bytes(content, size))
        os.utime(fresh, (int(_TIME), int(_TIME)))
        parent, _, base = place.rpartition("/")
        lines += [f"cd /{parent}", f"write {fresh} {base}"]
        written += size
    gone = len(chosen) - count
    note = (
        f"{count} of {len(files)} files changed, {gone} gone, {gone} added: "
        f"{written / (1 << 20):.1f} MiB written"
    )
    return "\n".join(lines) + "\n", note


def _bytes(content: Iterator[bytes], size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += next(content)
    return bytes(data[:size])


def _run(command: Sequence[str]) -> str:
    variables = os.environ | {"E2FSPROGS_FAKE_TIME": _TIME, "DEBUGFS_PAGER": "cat"}
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=True,
            env=variables,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"{command[0]} took more than {_DEADLINE:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        raise BenchError(f"{command[0]} failed: {exc.stderr.strip()}") from exc
    return result.stdout + result.stderr

"""What the encoding bench moves: made anew for each run of it, the same for the same seed.

`libraries` are blocks of this machine's shared libraries, so that they are the same only where those
are; a guest's memory is never twice the same (`bench.guest_memory`).
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench import disk_image, guest_memory
from bench.harness import BenchError
from bench.log_text import log_text

MIB = 1 << 20
PAGE = 4096
WORD = 8
LIBRARIES = (Path("/usr/lib"), Path("/usr/local/lib"), Path("/lib64"))
PHASES = ("logs", "random", "libraries", "zeros")
NAMES = (
    "libraries",
    "logs",
    "random",
    "zeros",
    "sparse",
    "guest-memory",
    "dirty-8",
    "dirty-64",
    "dirty-256",
    "image-v2",
    "phases",
)
_PIECE = 256 * 1024
"""Of one library at a time: as much of one as memory has in a row, and so short that a sample of a few
MiB has many of them."""
_SAMPLE = 64 * 1024
"""Of a guest's memory, which has some MiB of zeros and some of libraries in a row."""
_EXTENT = MIB
_SPARSE_SHARE = 4
"""One extent in so many of `sparse` holds something; the others are holes."""
_MASKS = 4
"""Different MiB of changed words, in turn: each chunk is coded alone, and for who looks farther back the
same change of other content is no repetition."""


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    size: int
    source: Path
    base: Path | None = None
    """What the receiving end holds already, of the same size."""
    sparse: bool = False
    """Sent with its holes."""
    note: str = ""


class DataMaker:
    """Makes data sets into one directory, which the caller removes."""

    def __init__(self, directory: Path, seed: int = 1, kernel: Path | None = None) -> None:
        self._directory = directory
        self._seed = seed
        self._kernel = kernel
        self._memory: Path | None = None

    def make(self, name: str, size: int) -> Dataset:
        """The data set *name* of *size* bytes, or of what there is of a guest's memory.

        Raises:
          BenchError: it cannot be made here; the text says why.
        """
        if name not in NAMES:
            raise BenchError(f"there is no data set {name!r}: {', '.join(NAMES)}")
        if size % MIB or size < len(PHASES) * MIB:
            raise BenchError(f"data sets are whole MiB, at least {len(PHASES)}, not {size} bytes")
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory))
        try:
            return self._made(name, size, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def discard(self, data: Dataset) -> None:
        shutil.rmtree(data.source.parent)

    def _made(self, name: str, size: int, folder: Path) -> Dataset:
        source, base = folder / "source", folder / "base"
        match name:
            case "libraries" | "logs" | "random" | "zeros":
                _write(source, size, BLOCKS[name](self._seed))
            case "sparse":
                write_sparse(source, size, self._seed)
                return Dataset(name, size, source, sparse=True)
            case "phases":
                part = size // len(PHASES)
                with source.open("wb") as file:
                    for phase in PHASES:
                        _fill(file, part, BLOCKS[phase](self._seed))
                note = f"{part // MIB} MiB each of {', '.join(PHASES)}, in this order"
                return Dataset(name, part * len(PHASES), source, note=note)
            case "guest-memory":
                size = self._sample(source, size)
            case "image-v2":
                content = BLOCKS["libraries"](self._seed)
                note = disk_image.write(base, source, size, content, self._seed)
                return Dataset(name, size, source, base=base, note=note)
            case _:
                words = int(name.removeprefix("dirty-"))
                size = self._sample(base, size)
                write_dirty(source, base, words, self._seed)
                return Dataset(name, size, source, base=base)
        return Dataset(name, size, source)

    def _sample(self, path: Path, size: int) -> int:
        """Pieces of the guest's memory, as far from each other as they can be; how many bytes."""
        if self._memory is None:
            memory = self._directory / "memory"
            guest_memory.write(memory, BLOCKS["libraries"](self._seed), self._kernel)
            self._memory = memory
        whole = self._memory.stat().st_size // _SAMPLE
        count = min(size // _SAMPLE, whole)
        with self._memory.open("rb") as memory_file, path.open("wb") as file:
            for number in range(count):
                memory_file.seek(number * whole // count * _SAMPLE)
                file.write(memory_file.read(_SAMPLE))
        return count * _SAMPLE


def _write(path: Path, size: int, blocks: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        _fill(file, size, blocks)


def _fill(file: BinaryIO, size: int, blocks: Iterator[bytes]) -> None:
    while size > 0:
        size -= file.write(next(blocks)[:size])


def library_blocks(seed: int) -> Iterator[bytes]:
    """Blocks of the machine's shared libraries in an order of *seed*, each once; then from the start.

    Raises:
      BenchError: there is no library.
    """
    found: list[tuple[str, int]] = []
    for root in LIBRARIES:
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if ".so" in name and os.path.isfile(path) and not os.path.islink(path):
                    size = os.path.getsize(path)
                    found += [(path, at) for at in range(0, size - _PIECE + 1, _PIECE)]
    if not found:
        raise BenchError("no shared libraries below " + ", ".join(map(str, LIBRARIES)))
    found.sort()
    random.Random(f"libraries {seed}").shuffle(found)
    for path, at in itertools.cycle(found):
        with open(path, "rb") as file:
            file.seek(at)
            yield file.read(_PIECE)


def random_blocks(seed: int) -> Iterator[bytes]:
    source = random.Random(f"random {seed}")
    while True:
        yield source.randbytes(MIB)


def zero_blocks(seed: int) -> Iterator[bytes]:
    del seed
    return itertools.repeat(bytes(MIB))


BLOCKS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "libraries": library_blocks,
    "logs": log_text,
    "random": random_blocks,
    "zeros": zero_blocks,
}


def write_sparse(path: Path, size: int, seed: int) -> None:
    """Holes, and one MiB in four with something in it, the first of each four or a later one."""
    blocks, places = library_blocks(seed), random.Random(f"sparse {seed}")
    with path.open("wb") as file:
        for begin in range(0, size, _SPARSE_SHARE * _EXTENT):
            at = begin + places.randrange(_SPARSE_SHARE) * _EXTENT
            if at < size:
                file.seek(at)
                _fill(file, min(_EXTENT, size - at), blocks)
        file.truncate(size)


def write_dirty(path: Path, base: Path, words: int, seed: int) -> None:
    """*base* with *words* different words of each page changed, to anything else: what a guest wrote
    between two rounds, at its least compressible."""
    masks = [_mask(random.Random(f"dirty {words} {seed} {n}"), words) for n in range(_MASKS)]
    with base.open("rb") as before, path.open("wb") as after:
        for mask in itertools.cycle(masks):
            block = before.read(MIB)
            if not block:
                return
            changed = int.from_bytes(block, "little") ^ mask
            after.write(changed.to_bytes(MIB, "little")[: len(block)])


def _mask(source: random.Random, words: int) -> int:
    mask = bytearray(MIB)
    for page in range(0, MIB, PAGE):
        for word in source.sample(range(PAGE // WORD), words):
            at = page + word * WORD
            mask[at : at + WORD] = source.randrange(1, 1 << 64).to_bytes(WORD, "little")
    return int.from_bytes(mask, "little")

"""What one core encodes: zeros, differences, ends of blocks, lz4 and zstd, in GB of content a second.

``python -m bench.hde_micro [--json]``, and a part of ``python -m bench hde``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.harness import BenchError, environment, interleaved, percentile, say
from novacron._native import hde
from novacron._native.ffi import Pointer, native

MIB = 1024 * 1024
SIZES = {"cache": 256 * 1024, "memory": 64 * MIB}
"""Of the buffers: what stays in the second cache of a core, and what comes from memory."""
CHUNK_BYTES = MIB
PAGE_BYTES = 4096
WORDS = (0, 1, 8, 64, 256)
"""Words of eight bytes written over in each page."""
CODED_BYTES = 4 * MIB
LEVELS = (("lz4", 1), ("zstd", -5), ("zstd", 1), ("zstd", 3), ("zstd", 6), ("zstd", 9))
BLOCKS = hde.BlockSizes(16 * 1024, 64 * 1024, 256 * 1024)
_WARM_UP = 1
# Long against the clock's resolution and the cost of a call through cffi, short against a scheduler's
# patience: what is interrupted is at most one of the rounds.
_ROUND_NS = 20_000_000


class _Buffers:
    """Memory that stays, and what is called on each chunk of it."""

    def __init__(self, size: int) -> None:
        loaded = native()
        self.lib = loaded.lib
        self.ffi = loaded.ffi
        self.size = size
        self.chunk = min(size, CHUNK_BYTES)
        self.error = loaded.new_error()
        self.memory: list[bytearray] = []

    def take(self, content: bytes | None = None, size: int | None = None) -> Pointer:
        memory = bytearray(size or self.size)
        if content is None:
            content = b"\1"  # touched, so that no page is missing when the clock runs
        whole = content * (len(memory) // len(content) + 1)
        memory[:] = whole[: len(memory)]
        self.memory.append(memory)
        return self.ffi.from_buffer("uint8_t[]", memory)

    def chunks(self, *pointers: Pointer) -> list[tuple[Pointer, ...]]:
        """The pointers of each chunk: made before the clock runs."""
        return [
            tuple(pointer + at for pointer in pointers) for at in range(0, self.size, self.chunk)
        ]


class _Subject:
    """One thing that is measured, over and over again for a round. What *once* has pointers to is
    *kept* meanwhile: a pointer into a buffer does not keep it alive."""

    def __init__(self, size: int, once: Callable[[], object], kept: object = None) -> None:
        self._size = size
        self._once = once
        self._kept = kept
        self.rates: list[float] = []

    def __call__(self) -> None:
        turns = 0
        begin = time.thread_time_ns()
        while (spent := time.thread_time_ns() - begin) < _ROUND_NS:
            self._once()
            turns += 1
        self.rates.append(turns * self._size / spent)

    def figures(self) -> dict[str, float]:
        measured = self.rates[_WARM_UP:]
        return {
            "gb_per_s": round(percentile(measured, 0.5), 3),
            "iqr": round(percentile(measured, 0.75) - percentile(measured, 0.25), 3),
        }


def _written_over(base: bytes, words: int, generator: random.Random) -> bytes:
    content = bytearray(base)
    for page in range(0, len(content), PAGE_BYTES):
        for _ in range(words):
            at = page + 8 * generator.randrange(PAGE_BYTES // 8)
            content[at : at + 8] = generator.randbytes(8)
    return bytes(content)


def _zeros(buffers: _Buffers) -> _Subject:
    lib, size = buffers.lib, buffers.chunk
    chunks = [chunk for (chunk,) in buffers.chunks(buffers.take(b"\0"))]

    def once() -> None:
        for chunk in chunks:
            if not lib.nc_is_zero(chunk, size):
                raise BenchError("zeros are not seen")

    return _Subject(buffers.size, once, buffers)


def _copies(buffers: _Buffers) -> _Subject:
    memmove, size = buffers.ffi.memmove, buffers.chunk
    chunks = buffers.chunks(buffers.take(b"abc"), buffers.take())

    def once() -> None:
        for source, target in chunks:
            memmove(target, source, size)

    return _Subject(buffers.size, once, buffers)


def _ends(buffers: _Buffers) -> _Subject:
    lib, size = buffers.lib, buffers.chunk
    noise = random.Random(3).randbytes(buffers.chunk)
    cdc = buffers.ffi.new("struct nc_cdc *", BLOCKS._asdict())
    most = size // BLOCKS.minimum + 1
    ends = buffers.ffi.new("size_t[]", most)
    chunks = [chunk for (chunk,) in buffers.chunks(buffers.take(noise))]

    def once() -> None:
        for chunk in chunks:
            lib.nc_cdc_ends(cdc, chunk, size, True, ends, most)

    return _Subject(buffers.size, once, buffers)


def _differences(buffers: _Buffers, words: int) -> tuple[_Subject, _Subject, float]:
    """Encoding and decoding, and how many times smaller the difference is."""
    lib, size, error = buffers.lib, buffers.chunk, buffers.error
    generator = random.Random(words)
    # Of 16 MiB at least: a shorter pattern is learned by the processor's predictor of branches.
    old = generator.randbytes(min(buffers.size, 16 * MIB))
    new = _written_over(old, words, generator)
    capacity = size + lib.NC_DELTA_SPARE
    delta = buffers.take(size=capacity)
    chunks = buffers.chunks(buffers.take(new), buffers.take(old))
    sizes = [lib.nc_delta_encode(content, base, size, delta, capacity) for content, base in chunks]

    def encode() -> None:
        for content, base in chunks:
            lib.nc_delta_encode(content, base, size, delta, capacity)

    streams = [(buffers.take(size=made), made) for made in sizes]
    for (content, base), (stream, made) in zip(chunks, streams, strict=True):
        lib.nc_delta_encode(content, base, size, stream, made)
    target = buffers.take(size=size)

    def decode() -> None:
        for (_, base), (stream, made) in zip(chunks, streams, strict=True):
            if lib.nc_delta_decode(stream, made, base, target, size, error):
                raise BenchError("a difference is refused")

    encoder = _Subject(buffers.size, encode, buffers)
    decoder = _Subject(buffers.size, decode, buffers)
    return encoder, decoder, buffers.size / sum(sizes)


def _sources() -> bytes:
    """The standard library's modules: text that compresses as such text does."""
    found = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found += path.read_bytes()
        if len(found) >= CODED_BYTES:
            return bytes(found[:CODED_BYTES])
    if not found:
        raise BenchError("the standard library's modules are not there as files")
    return bytes(found) * (CODED_BYTES // len(found) + 1)


def _coded(
    codec: hde.Codec, name: str, level: int, content: bytes
) -> tuple[_Subject, _Subject, float]:
    chunks = [content[at : at + CHUNK_BYTES] for at in range(0, CODED_BYTES, CHUNK_BYTES)]
    coded = [codec.encode(name, chunk, level=level, capacity=2 * CHUNK_BYTES) for chunk in chunks]
    made = [chunk for chunk in coded if chunk is not None]

    def encode() -> None:
        for chunk in chunks:
            codec.encode(name, chunk, level=level)

    def decode() -> None:
        for chunk in made:
            codec.decode(name, chunk, CHUNK_BYTES)

    encoder, decoder = _Subject(CODED_BYTES, encode), _Subject(CODED_BYTES, decode)
    return encoder, decoder, CODED_BYTES / sum(map(len, made))


def _prepared(codec: hde.Codec) -> Iterator[tuple[str, str, _Subject, float | None]]:
    for place, size in SIZES.items():
        yield "copy", place, _copies(_Buffers(size)), None
        yield "zero", place, _zeros(_Buffers(size)), None
        yield "cdc", place, _ends(_Buffers(size)), None
        for words in WORDS:
            encoder, decoder, ratio = _differences(_Buffers(size), words)
            yield f"delta {words} words a page", place, encoder, ratio
            yield f"undelta {words} words a page", place, decoder, None
    kinds = {"text": _sources(), "noise": random.Random(1).randbytes(CODED_BYTES)}
    for kind, content in kinds.items():
        for name, level in LEVELS:
            encoder, decoder, ratio = _coded(codec, name, level, content)
            yield f"{name} {level}", kind, encoder, ratio
            yield f"un{name} {level}", kind, decoder, None


def measure(rounds: int = 5) -> dict[str, Any]:
    """Rates in GB (10^9 bytes) of content a second of the thread's CPU time, medians of *rounds*.

    ``cache`` and ``memory`` are where buffers of 256 KiB and 64 MiB lie; ``text`` and ``noise`` what
    the codecs encode, 4 MiB in chunks of 1. ``ratio`` is content for each byte that it becomes. The
    places that differ in ``cache`` are so few that the processor's predictor of branches learns them:
    what new content takes is in ``memory``.

    Raises:
      BenchError: a codec's library is missing, or *rounds* is less than 1.
    """
    if rounds < 1:
        raise BenchError("--rounds must be at least 1")
    if hde.available() != hde.CODECS:
        raise BenchError("; ".join(filter(None, map(hde.missing, hde.CODECS))))
    result: dict[str, Any] = {
        "rounds": rounds,
        "versions": {name: hde.version(name) for name in hde.CODECS[1:]},
        "rates": {},
    }
    with hde.Codec() as codec:
        # One subject after the other, not in turn: 64 MiB each would be a gigabyte and more at once.
        for name, where, subject, ratio in _prepared(codec):
            interleaved([subject], rounds, warm_up=_WARM_UP)
            figures = subject.figures()
            if ratio is not None:
                figures["ratio"] = round(ratio, 2)
            result["rates"].setdefault(name, {})[where] = figures
            say(".")
    say("\n")
    return result


def as_text(result: dict[str, Any]) -> str:
    lines = []
    for places in (SIZES, ("text", "noise")):
        lines.append(f"{'GB/s of one core':26}" + "".join(f"{place:>22}" for place in places))
        for name, rates in result["rates"].items():
            if not any(place in rates for place in places):
                continue
            cells = [
                f"{rates[place]['gb_per_s']:.2f}"
                + (f" ({rates[place]['ratio']:.4g}:1)" if "ratio" in rates[place] else "")
                for place in places
            ]
            lines.append(f"{name:26}" + "".join(f"{cell:>22}" for cell in cells))
        lines.append("")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, f"medians of {result['rounds']} rounds; {versions}"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.hde_micro", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--rounds", type=int, default=5, help="rounds measured (default: 5)")
    args = parser.parse_args(arguments)
    try:
        result = measure(args.rounds)
    except BenchError as exc:
        sys.stderr.write(f"bench hde_micro: {exc}\n")
        return 1
    result["environment"] = environment()
    print(json.dumps(result, indent=2) if args.json else as_text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

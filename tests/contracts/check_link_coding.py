"""The part of the link contract that is about how objects are encoded: whatever is asked for, what
arrives is what was sent. A link that can encode has to say so, and by how much."""

from __future__ import annotations

import os
import random
from pathlib import Path

from novacron.dwcp.amst.transport import Base, Coding, Moving, Source, Target
from tests.contracts.link_pair import CHUNK, Case, Pair, content, finish, leaves_of, opened

WORDS = [random.Random(number).randbytes(6) for number in range(400)]
CODINGS = [
    Coding("off"),
    Coding("adaptive"),
    Coding("adaptive", level_min=1, level_max=1),
    Coding("fixed", "raw"),
    Coding("fixed", "lz4", 1),
    Coding("fixed", "zstd", -5),
    Coding("fixed", "zstd", 3),
    Coding("fixed", "zstd", 19),
]


def text(size: int, seed: int = 1) -> bytes:
    """Something that compresses two to four times."""
    chooser = random.Random(seed)
    return b"".join(chooser.choices(WORDS, k=size // 6 + 1))[:size]


def mixed(size: int) -> bytes:
    """Chunk by chunk text, noise and zeros, with a last one that is not whole."""
    parts = []
    for index in range(size // CHUNK + 1):
        make = (text, content, lambda length, _: bytes(length))[index % 3]
        parts.append(make(CHUNK, index))
    return b"".join(parts)[:size]


def touched(data: bytes, every: int = 4096, seed: int = 3) -> bytes:
    """*data* with one word changed in so many bytes."""
    chooser, changed = random.Random(seed), bytearray(data)
    for at in range(0, len(data) - 8, every):
        changed[at : at + 8] = chooser.randbytes(8)
    return bytes(changed)


async def start(pair: Pair, source: Source, target: Target, number: int) -> tuple[Moving, Moving]:
    far = pair.far.receive_object(number, 0, target, chunk_bytes=CHUNK)
    near = pair.near.send_object(number, 0, source, chunk_bytes=CHUNK)
    return near, far


async def every_way_of_encoding_arrives_whole(pair: Pair, directory: Path) -> None:
    data = mixed(10 * CHUNK + 4099)
    for number, coding in enumerate(CODINGS, 1):
        target = bytearray(b"\xee" * len(data))
        near, far = await start(
            pair,
            Source(len(data), memory=data, coding=coding, stable=bool(number % 2)),
            Target(len(data), memory=target),
            number,
        )
        await finish(near, far)
        assert target == data
        chunks = near.progress().chunks
        assert near.leaves(0, chunks) in (leaves_of(data), leaves_of(b""))
        report, there = near.coding(), far.coding()
        if coding.policy == "off" or len(pair.near.codecs) == 1:
            continue
        assert report.zero.bytes == 3 * CHUNK
        assert report.bytes == len(data)
        assert report.wire_bytes <= len(data) - 3 * CHUNK
        assert there.bytes == len(data)
        if coding.policy == "fixed" and coding.codec != "raw":
            used = getattr(report, coding.codec)
            assert used.chunks >= 4
            assert used.wire_bytes < used.bytes
            assert report.raw.chunks >= 3  # noise is sent as it is
            assert report.cpu_seconds.encode > 0
            assert there.cpu_seconds.decode > 0


async def files_are_encoded_and_keep_their_holes(pair: Pair, directory: Path) -> None:
    data = text(3 * CHUNK + 77)
    size = 40 * CHUNK
    with (
        opened(directory / "s", size=size) as source,
        opened(directory / "t", size=size) as target,
    ):
        os.pwrite(source, data, 20 * CHUNK)
        near, far = await start(
            pair,
            Source(size, fd=source, sparse=True, coding=Coding()),
            Target(size, fd=target, sparse=True),
            1,
        )
        await finish(near, far)
        assert (directory / "t").read_bytes() == (directory / "s").read_bytes()
        assert os.stat(target).st_blocks * 512 < 8 * CHUNK


async def only_the_difference_to_a_base_is_sent(pair: Pair, directory: Path) -> None:
    old = content(12 * CHUNK + 100)
    new = touched(old)
    for number, coding in enumerate([Coding(), Coding("fixed", "zstd", 1), Coding("fixed", "raw")]):
        target = bytearray(old)
        near, far = await start(
            pair,
            Source(len(new), memory=new, coding=coding, base=Base(7, memory=old)),
            Target(len(new), memory=target, base=Base(7, memory=target)),
            number + 1,
        )
        await finish(near, far)
        assert target == new
        if "delta" in pair.near.codecs:
            report = near.coding()
            assert report.delta.bytes == len(new)
            assert report.delta.wire_bytes < len(new) // 100
            assert report.refused_bases == 0


async def what_the_receiver_holds_in_parts_is_not_sent(pair: Pair, directory: Path) -> None:
    data = content(10 * CHUNK)
    held = [(0, 1000), (CHUNK // 2, 3 * CHUNK), (7 * CHUNK + 5, 2 * CHUNK)]
    there = bytearray(len(data))
    for offset, size in held:
        there[offset : offset + size] = data[offset : offset + size]
    with opened(directory / "t", bytes(there)) as target:
        near, far = await start(
            pair,
            Source(len(data), memory=data, coding=Coding(), base=Base(1, held=held)),
            Target(len(data), fd=target, sparse=True, base=Base(1, fd=target)),
            1,
        )
        await finish(near, far)
        assert (directory / "t").read_bytes() == data
    if "delta" in pair.near.codecs:
        moved = len(data) - sum(size for _, size in held)
        assert moved <= near.coding().wire_bytes < moved + 4096


async def another_base_is_refused_and_the_whole_is_sent(pair: Pair, directory: Path) -> None:
    old = content(12 * CHUNK)
    new = touched(old)
    diverged = bytearray(old)
    diverged[3 * CHUNK + 17] ^= 1
    for number, base in ((1, Base(7, memory=diverged)), (2, Base(8, memory=old)), (3, None)):
        target = bytearray(len(new))
        near, far = await start(
            pair,
            Source(len(new), memory=new, coding=Coding(), base=Base(7, memory=old)),
            Target(len(new), memory=target, base=base),
            number,
        )
        await finish(near, far)
        assert target == new
        if "delta" in pair.near.codecs:
            refused = 1 if number == 1 else 12
            assert near.coding().refused_bases == far.coding().refused_bases == refused


async def zeros_replace_what_lay_in_the_base(pair: Pair, directory: Path) -> None:
    old = content(6 * CHUNK)
    new = bytearray(old)
    new[CHUNK : 3 * CHUNK] = bytes(2 * CHUNK)
    new[4 * CHUNK + 8192 : 4 * CHUNK + 16384] = bytes(8192)
    for number, id in ((1, 7), (2, 8)):
        with opened(directory / f"t{number}", old) as target:
            near, far = await start(
                pair,
                Source(len(new), memory=bytes(new), coding=Coding(), base=Base(7, memory=old)),
                Target(len(new), fd=target, sparse=True, base=Base(id, fd=target)),
                number,
            )
            await finish(near, far)
            if "delta" in pair.near.codecs:
                assert (directory / f"t{number}").read_bytes() == new


CASES: list[Case] = [
    every_way_of_encoding_arrives_whole,
    files_are_encoded_and_keep_their_holes,
    only_the_difference_to_a_base_is_sent,
    what_the_receiver_holds_in_parts_is_not_sent,
    another_base_is_refused_and_the_whole_is_sent,
    zeros_replace_what_lay_in_the_base,
]

"""The part of the link contract that is about objects that arrive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.errors import (
    ObjectRefusedError,
)
from novacron.dwcp.amst.transport import Have, Moving, Source, Target
from tests.contracts.link_pair import (
    CHUNK,
    MAX_CHUNK,
    SIZES,
    SLOW,
    Case,
    Pair,
    content,
    finish,
    leaves_of,
    move,
    opened,
)

# --- Objects ----------------------------------------------------------------------------------


async def files_of_every_size_arrive(pair: Pair, directory: Path) -> None:
    for number, size in enumerate(SIZES, 1):
        data = content(size, number)
        with (
            opened(directory / f"s{number}", data) as source,
            opened(directory / f"t{number}", size=size) as target,
        ):
            far = pair.far.receive_object(number, 3, Target(size, fd=target), chunk_bytes=CHUNK)
            near = pair.near.send_object(number, 3, Source(size, fd=source), chunk_bytes=CHUNK)
            await near.wait()
            await far.wait()
            chunks = -(-size // CHUNK)
            for end in (near, far):
                progress = end.progress()
                assert (progress.done_bytes, progress.done_chunks) == (size, chunks)
                assert (progress.chunks, progress.moved_bytes) == (chunks, size)
                assert end.leaves(0, chunks) == leaves_of(data)
                bits = int.from_bytes(end.bitmap(), "little")
                assert bits == (1 << chunks) - 1
            await near.aclose()
            await far.aclose()
            assert (directory / f"t{number}").read_bytes() == data


async def memory_of_every_size_arrives(pair: Pair, directory: Path) -> None:
    for number, size in enumerate(SIZES, 1):
        data, target = content(size, number), bytearray(size)
        await move(pair, Source(size, memory=data), Target(size, memory=target), number)
        assert target == data


async def memory_goes_to_a_file_and_a_file_to_memory(pair: Pair, directory: Path) -> None:
    data = content(10 * CHUNK + 5)
    back = bytearray(len(data))
    with opened(directory / "file", size=len(data)) as file:
        await move(pair, Source(len(data), memory=data), Target(len(data), fd=file))
        await move(pair, Source(len(data), fd=file), Target(len(data), memory=back))
    assert back == data


async def chunks_may_be_as_large_as_the_link_says(pair: Pair, directory: Path) -> None:
    size = pair.near.max_chunk_bytes
    data, target = content(2 * size + 1), bytearray(2 * size + 1)
    far = pair.far.receive_object(1, 0, Target(len(data), memory=target), chunk_bytes=size)
    near = pair.near.send_object(1, 0, Source(len(data), memory=data), chunk_bytes=size)
    await finish(near, far)
    assert target == data


async def many_objects_move_at_once_in_both_directions(pair: Pair, directory: Path) -> None:
    moving: list[Moving] = []
    pairs: list[tuple[bytes, bytearray]] = []
    for number in range(1, 13):
        data = content(number * CHUNK // 2 + number, number)
        target = bytearray(len(data))
        pairs.append((data, target))
        # The two directions number for themselves.
        sender, receiver = (pair.near, pair.far) if number % 2 else (pair.far, pair.near)
        of = (number + 1) // 2
        moving += [
            receiver.receive_object(of, 0, Target(len(data), memory=target), chunk_bytes=CHUNK),
            sender.send_object(of, 0, Source(len(data), memory=data), chunk_bytes=CHUNK),
        ]
    await finish(*moving)
    assert all(target == data for data, target in pairs)


async def a_number_may_be_used_again_after_the_end(pair: Pair, directory: Path) -> None:
    for turn in range(30):
        data, target = content(100 + turn, turn), bytearray(100 + turn)
        await move(pair, Source(len(data), memory=data), Target(len(data), memory=target))
        assert target == data


async def the_end_may_be_waited_for_twice_and_by_many(pair: Pair, directory: Path) -> None:
    data, target = content(CHUNK), bytearray(CHUNK)
    far = pair.far.receive_object(1, 0, Target(CHUNK, memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(1, 0, Source(CHUNK, memory=data), chunk_bytes=CHUNK)
    async with trio.open_nursery() as nursery:
        for end in (near, far, near, far):
            nursery.start_soon(end.wait)
    await near.wait()
    await finish(near, far)
    await near.aclose()


async def a_cancelled_wait_leaves_the_object_moving(pair: Pair, directory: Path) -> None:
    data, target = content(4 * CHUNK), bytearray(4 * CHUNK)
    far = pair.far.receive_object(1, 0, Target(len(data), memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(
        1, 0, Source(len(data), memory=data), chunk_bytes=CHUNK, limit_bps=4 * SLOW
    )
    with trio.move_on_after(0.01):
        await far.wait()
    await finish(near, far)
    assert target == data


# --- Holes ------------------------------------------------------------------------------------


def sparse_source(path: Path, size: int, places: dict[int, bytes]) -> bytes:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in places.items():
            file.seek(offset)
            file.write(data)
    return path.read_bytes()


async def holes_stay_holes(pair: Pair, directory: Path) -> None:
    size = 200 * CHUNK + 100
    places = {0: content(CHUNK), 50 * CHUNK: content(3 * CHUNK), 199 * CHUNK: content(CHUNK)}
    data = sparse_source(directory / "source", size, places)
    descriptor = os.open(directory / "source", os.O_RDONLY)
    try:
        with opened(directory / "target", size=size) as target:
            far = pair.far.receive_object(
                1, 0, Target(size, fd=target, sparse=True), chunk_bytes=CHUNK
            )
            near = pair.near.send_object(
                1, 0, Source(size, fd=descriptor, sparse=True), chunk_bytes=CHUNK
            )
            await near.wait()
            await far.wait()
            for end in (near, far):
                progress = end.progress()
                assert progress.moved_bytes == 5 * CHUNK
                assert progress.zero_bytes == size - 5 * CHUNK
                assert progress.done_bytes == size
                assert end.leaves(0, progress.chunks) == leaves_of(data)
            await near.aclose()
            await far.aclose()
            assert os.fstat(target).st_blocks * 512 <= 5 * CHUNK + 16384
    finally:
        os.close(descriptor)
    assert (directory / "target").read_bytes() == data


async def an_object_that_is_one_hole_arrives(pair: Pair, directory: Path) -> None:
    size = (1 << 40) + 5
    with (
        opened(directory / "source", size=size) as source,
        opened(directory / "target", size=size) as target,
    ):
        chunk = MAX_CHUNK
        far = pair.far.receive_object(1, 0, Target(size, fd=target, sparse=True), chunk_bytes=chunk)
        near = pair.near.send_object(1, 0, Source(size, fd=source, sparse=True), chunk_bytes=chunk)
        await near.wait()
        await far.wait()
        assert far.progress().zero_bytes == size
        assert near.progress().moved_bytes == 0
        await finish(near, far)
        assert os.fstat(target).st_blocks == 0


async def blocks_of_zeros_within_a_chunk_are_not_written(pair: Pair, directory: Path) -> None:
    data = bytearray(16 * CHUNK)
    for chunk in range(16):
        data[chunk * CHUNK + 8192 : chunk * CHUNK + 8192 + 4096] = content(4096, chunk)
    with opened(directory / "target", size=len(data)) as target:
        await move(
            pair,
            Source(len(data), memory=bytes(data)),
            Target(len(data), fd=target, sparse=True),
        )
        assert os.fstat(target).st_blocks * 512 <= 16 * 4096 + 16384
    assert (directory / "target").read_bytes() == data


async def a_hole_is_written_over_what_was_there(pair: Pair, directory: Path) -> None:
    size = 6 * CHUNK + 9
    data = sparse_source(directory / "source", size, {2 * CHUNK: content(CHUNK)})
    descriptor = os.open(directory / "source", os.O_RDONLY)
    memory = bytearray(b"\xff" * size)
    try:
        with opened(directory / "target", b"\xff" * size) as target:
            source = Source(size, fd=descriptor, sparse=True)
            await move(pair, source, Target(size, fd=target), 1)
            await move(pair, source, Target(size, memory=memory), 2)
    finally:
        os.close(descriptor)
    assert (directory / "target").read_bytes() == data
    assert memory == data


# --- Going on ---------------------------------------------------------------------------------


async def only_what_is_missing_moves(pair: Pair, directory: Path) -> None:
    size = 20 * CHUNK + 11
    data = content(size)
    held = {0, 3, 4, 5, 11, 20}
    bits = bytearray(3)
    target = bytearray(size)
    for chunk in held:
        bits[chunk // 8] |= 1 << chunk % 8
        target[chunk * CHUNK : (chunk + 1) * CHUNK] = data[chunk * CHUNK : (chunk + 1) * CHUNK]
    have = Have(bytes(bits), leaves_of(data))
    far = pair.far.receive_object(1, 2, Target(size, memory=target), chunk_bytes=CHUNK, have=have)
    assert far.bitmap() == bytes(bits)
    near = pair.near.send_object(1, 2, Source(size, memory=data), chunk_bytes=CHUNK, have=have)
    await near.wait()
    await far.wait()
    for end in (near, far):
        assert end.progress().moved_bytes == size - 5 * CHUNK - 11
        assert end.progress().done_bytes == size
        assert end.leaves(0, 21) == leaves_of(data)
    await finish(near, far)
    assert target == data


async def an_object_that_is_there_is_done_at_once(pair: Pair, directory: Path) -> None:
    data = content(3 * CHUNK)
    have = Have(b"\x07", leaves_of(data))
    target = bytearray(len(data))
    far = pair.far.receive_object(
        1, 0, Target(len(data), memory=target), chunk_bytes=CHUNK, have=have
    )
    near = pair.near.send_object(1, 0, Source(len(data), memory=data), chunk_bytes=CHUNK, have=have)
    await finish(near, far)
    assert near.progress().moved_bytes == far.progress().moved_bytes == 0
    assert not any(target)


async def another_generation_is_refused(pair: Pair, directory: Path) -> None:
    target = bytearray(CHUNK)
    far = pair.far.receive_object(1, 2, Target(CHUNK, memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(1, 1, Source(CHUNK, memory=content(CHUNK)), chunk_bytes=CHUNK)
    with pytest.raises(ObjectRefusedError):
        await near.wait()
    await near.aclose()
    await far.aclose()
    assert not any(target)


CASES: list[Case] = [
    files_of_every_size_arrive,
    memory_of_every_size_arrives,
    memory_goes_to_a_file_and_a_file_to_memory,
    chunks_may_be_as_large_as_the_link_says,
    many_objects_move_at_once_in_both_directions,
    a_number_may_be_used_again_after_the_end,
    the_end_may_be_waited_for_twice_and_by_many,
    a_cancelled_wait_leaves_the_object_moving,
    holes_stay_holes,
    an_object_that_is_one_hole_arrives,
    blocks_of_zeros_within_a_chunk_are_not_written,
    a_hole_is_written_over_what_was_there,
    only_what_is_missing_moves,
    an_object_that_is_there_is_done_at_once,
    another_generation_is_refused,
]

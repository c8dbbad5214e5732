"""What every :class:`novacron.dwcp.amst.transport.Link` must do.

Each case gets a connected pair, whose chunks may have up to 1 MiB and whose windows have 4 MiB, and
a directory. ``CASES`` has them all.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import zlib
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.dwcp.amst.errors import (
    LinkLostError,
    ObjectRefusedError,
    SourceReadError,
    TargetWriteError,
)
from novacron.dwcp.amst.transport import Have, Link, Moving, Source, Target
from novacron.errors import DwcpError


@dataclass
class Pair:
    near: Link
    far: Link
    lose: Callable[[], Awaitable[None]]
    """Makes both ends lose the link, as when the network between them is gone for good."""


Case = Callable[[Pair, Path], Awaitable[None]]

CHUNK = 64 * 1024
MAX_CHUNK = 1 << 20
WINDOW = 4 << 20
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7, 40 * CHUNK]
SLOW = 256 * 1024
"""Bytes a second at which a case has the time to do something in between."""


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@contextmanager
def opened(path: Path, data: bytes | None = None, size: int = 0) -> Iterator[int]:
    """A file with *data*, or an empty one of *size* bytes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        if data is None:
            os.truncate(descriptor, size)
        else:
            os.write(descriptor, data) if len(data) < CHUNK else path.write_bytes(data)
        yield descriptor
    finally:
        os.close(descriptor)


def leaves_of(data: bytes, chunk: int = CHUNK) -> array[int]:
    return array("I", [zlib.crc32(data[at : at + chunk]) for at in range(0, len(data), chunk)])


async def finish(*moving: Moving) -> None:
    """Wait for all, then close them."""
    try:
        async with trio.open_nursery() as nursery:
            for one in moving:
                nursery.start_soon(one.wait)
    finally:
        for one in moving:
            await one.aclose()


async def move(pair: Pair, source: Source, target: Target, number: int = 1, **options: Any) -> None:
    """From near to far, and wait."""
    far = pair.far.receive_object(number, 0, target, chunk_bytes=CHUNK)
    near = pair.near.send_object(number, 0, source, chunk_bytes=CHUNK, **options)
    await finish(near, far)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await trio.sleep(0.005)


async def settled(moving: Moving) -> int:
    """The done bytes, once they stay the same for a while."""
    before = -1
    while before != (before := moving.progress().done_bytes):
        await trio.sleep(0.2)
    return before


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


# --- Turns, pauses and limits -----------------------------------------------------------------


class Crowd:
    """Two objects of one size on a slow link, sent with these priorities."""

    def __init__(self, pair: Pair, size: int, priorities: tuple[int, int]) -> None:
        pair.near.limit(4 * SLOW)
        self.near: list[Moving] = []
        self.far: list[Moving] = []
        for number, priority in enumerate(priorities, 1):
            data = content(size, number)
            self.far.append(
                pair.far.receive_object(
                    number, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK
                )
            )
            self.near.append(
                pair.near.send_object(
                    number, 0, Source(size, memory=data), chunk_bytes=CHUNK, priority=priority
                )
            )


async def what_is_urgent_overtakes(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 16 * CHUNK, (2, 0))
    await crowd.near[1].wait()
    assert crowd.near[0].progress().done_bytes < 16 * CHUNK
    pair.near.limit(0)
    await finish(*crowd.near, *crowd.far)


async def a_priority_may_change_on_the_way(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 16 * CHUNK, (0, 1))
    await until(lambda: crowd.near[0].progress().done_bytes)
    crowd.near[0].prioritise(7)
    await crowd.near[1].wait()
    assert crowd.near[0].progress().done_bytes < 16 * CHUNK
    pair.near.limit(0)
    await finish(*crowd.near, *crowd.far)


async def those_of_one_priority_share(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 24 * CHUNK, (1, 1))
    await until(lambda: crowd.near[0].progress().done_bytes >= 12 * CHUNK)
    assert crowd.near[1].progress().done_bytes >= 4 * CHUNK
    pair.near.limit(0)
    await finish(*crowd.near, *crowd.far)


async def a_paused_object_stands_still_until_it_goes_on(pair: Pair, directory: Path) -> None:
    crowd = Crowd(pair, 16 * CHUNK, (1, 1))
    await until(lambda: crowd.near[0].progress().done_bytes)
    crowd.near[0].pause(True)
    stopped = await settled(crowd.near[0])
    await crowd.near[1].wait()
    assert crowd.near[0].progress().done_bytes == stopped < 16 * CHUNK
    pair.near.limit(0)
    crowd.near[0].pause(False)
    await finish(*crowd.near, *crowd.far)


async def each_object_keeps_its_limit(pair: Pair, directory: Path) -> None:
    size = 64 * CHUNK
    moving: list[Moving] = []
    for number, rate in ((1, SLOW), (2, 6 * SLOW)):
        target = Target(size, memory=bytearray(size))
        moving += [
            pair.far.receive_object(number, 0, target, chunk_bytes=CHUNK),
            pair.near.send_object(
                number,
                0,
                Source(size, memory=content(size)),
                chunk_bytes=CHUNK,
                limit_bps=rate,
            ),
        ]
    slow, fast = moving[1], moving[3]
    await until(lambda: fast.progress().moved_bytes >= 36 * CHUNK)
    # Six times, but for a chunk or two at the beginning, and a machine that has other things to do.
    assert 2 * CHUNK <= slow.progress().moved_bytes <= 14 * CHUNK
    slow.limit(0)
    fast.limit(0)
    await finish(*moving)


async def a_link_keeps_its_limit_over_all_objects(pair: Pair, directory: Path) -> None:
    taken = []
    for rate in (2 * SLOW, 12 * SLOW):
        pair.near.limit(rate)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                data = content(6 * CHUNK, number)
                nursery.start_soon(
                    move,
                    pair,
                    Source(len(data), memory=data),
                    Target(len(data), memory=bytearray(len(data))),
                    number,
                )
        taken.append(trio.current_time() - begun)
    assert taken[0] > 2 * taken[1]


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


# --- What goes wrong --------------------------------------------------------------------------


async def link_works(pair: Pair) -> None:
    data, target = content(2 * CHUNK + 1, 9), bytearray(2 * CHUNK + 1)
    await move(pair, Source(len(data), memory=data), Target(len(data), memory=target), 99)
    assert target == data


async def an_object_nobody_expects_is_refused(pair: Pair, directory: Path) -> None:
    near = pair.near.send_object(5, 0, Source(CHUNK, memory=content(CHUNK)), chunk_bytes=CHUNK)
    with pytest.raises(ObjectRefusedError, match="does not expect"):
        await near.wait()
    await near.aclose()
    await link_works(pair)


async def a_receiver_that_gives_up_stops_the_sender(pair: Pair, directory: Path) -> None:
    size = 32 * CHUNK
    target = bytearray(size)
    far = pair.far.receive_object(1, 0, Target(size, memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(
        1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK, limit_bps=4 * SLOW
    )
    await until(lambda: far.progress().done_bytes)
    await far.aclose()
    there = bytes(target)
    with pytest.raises(ObjectRefusedError):
        await near.wait()
    with pytest.raises(DwcpError):
        await far.wait()
    assert target == there, "nothing touches the memory any more"
    await near.aclose()
    await link_works(pair)


async def a_sender_that_gives_up_leaves_the_link_in_order(pair: Pair, directory: Path) -> None:
    size = 32 * CHUNK
    far = pair.far.receive_object(1, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK)
    near = pair.near.send_object(
        1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK, limit_bps=4 * SLOW
    )
    await until(lambda: near.progress().done_bytes)
    await near.aclose()
    with pytest.raises(DwcpError):
        await near.wait()
    assert await settled(far) < size
    await far.aclose()
    await link_works(pair)


async def a_full_disk_is_known_on_both_ends(pair: Pair, directory: Path) -> None:
    size = 8 * CHUNK
    full = os.open("/dev/full", os.O_RDWR)
    try:
        far = pair.far.receive_object(1, 0, Target(size, fd=full), chunk_bytes=CHUNK)
        near = pair.near.send_object(1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK)
        with pytest.raises(TargetWriteError, match="No space left"):
            await far.wait()
        with pytest.raises(ObjectRefusedError, match="No space left"):
            await near.wait()
        await near.aclose()
        await far.aclose()
    finally:
        os.close(full)
    await link_works(pair)


async def a_target_that_cannot_be_written_is_known_on_both_ends(
    pair: Pair, directory: Path
) -> None:
    (directory / "target").write_bytes(bytes(CHUNK))
    read_only = os.open(directory / "target", os.O_RDONLY)
    try:
        far = pair.far.receive_object(1, 0, Target(CHUNK, fd=read_only), chunk_bytes=CHUNK)
        near = pair.near.send_object(1, 0, Source(CHUNK, memory=content(CHUNK)), chunk_bytes=CHUNK)
        with pytest.raises(TargetWriteError):
            await far.wait()
        with pytest.raises(ObjectRefusedError):
            await near.wait()
        await near.aclose()
        await far.aclose()
    finally:
        os.close(read_only)
    await link_works(pair)


async def a_source_that_shrank_is_known_to_the_sender(pair: Pair, directory: Path) -> None:
    size = 8 * CHUNK
    for sparse in (False, True):
        with opened(directory / f"source {sparse}", content(3 * CHUNK)) as source:
            far = pair.far.receive_object(
                1, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK
            )
            near = pair.near.send_object(
                1, 0, Source(size, fd=source, sparse=sparse), chunk_bytes=CHUNK
            )
            with pytest.raises(SourceReadError, match="shorter"):
                await near.wait()
            await near.aclose()
            await far.aclose()
    await link_works(pair)


async def what_is_closed_while_cancelled_is_closed(pair: Pair, directory: Path) -> None:
    size = 32 * CHUNK
    target = bytearray(size)
    far = pair.far.receive_object(1, 0, Target(size, memory=target), chunk_bytes=CHUNK)
    near = pair.near.send_object(1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK)
    with trio.CancelScope() as scope:
        scope.cancel()
        await far.aclose()
        await near.aclose()
    there = bytes(target)
    await link_works(pair)
    assert target == there


# --- Byte streams -----------------------------------------------------------------------------


class Pipes:
    """Byte streams between the ends; ``a`` and ``b`` are what programs at near and far hold."""

    def __init__(self, pair: Pair, number: int = 1, window: int = 256 * 1024) -> None:
        a, near = socket.socketpair()
        b, far = socket.socketpair()
        for sock in (a, near, b, far):
            # So that the kernel's own buffers do not hide what the window does.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        with near, far:
            self.moving = [
                pair.far.receive_pipe(number, far.fileno(), window_bytes=window),
                pair.near.receive_pipe(number, near.fileno(), window_bytes=window),
                pair.near.send_pipe(number, near.fileno(), chunk_bytes=CHUNK, window_bytes=window),
                pair.far.send_pipe(number, far.fileno(), chunk_bytes=CHUNK, window_bytes=window),
            ]
        self.a = trio.SocketStream(trio.socket.from_stdlib_socket(a))
        self.b = trio.SocketStream(trio.socket.from_stdlib_socket(b))

    async def __aenter__(self) -> Pipes:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for one in self.moving:
            await one.aclose()
        with trio.CancelScope(shield=True):
            await self.a.aclose()
            await self.b.aclose()


async def read_all(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    async for part in stream:
        data += part
    return bytes(data)


async def say(stream: trio.SocketStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


async def byte_streams_carry_both_ways_to_their_ends(pair: Pair, directory: Path) -> None:
    there, back = content(3_000_001, 1), content(2_000_003, 2)
    async with Pipes(pair) as pipes:
        heard: dict[str, bytes] = {}

        async def hear(name: str, stream: trio.SocketStream) -> None:
            heard[name] = await read_all(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, pipes.a, there)
            nursery.start_soon(say, pipes.b, back)
            nursery.start_soon(hear, "a", pipes.a)
            nursery.start_soon(hear, "b", pipes.b)
        assert heard == {"a": back, "b": there}
        for one in pipes.moving:
            await one.wait()


async def one_direction_may_end_before_the_other(pair: Pair, directory: Path) -> None:
    async with Pipes(pair) as pipes:
        await say(pipes.a, b"question")
        assert await read_all(pipes.b) == b"question"
        await say(pipes.b, b"answer")
        assert await read_all(pipes.a) == b"answer"
        for one in pipes.moving:
            await one.wait()


async def a_byte_stream_may_be_empty(pair: Pair, directory: Path) -> None:
    async with Pipes(pair) as pipes:
        await pipes.a.send_eof()
        await pipes.b.send_eof()
        assert await read_all(pipes.b) == b""
        assert await read_all(pipes.a) == b""
        for one in pipes.moving:
            await one.wait()


async def small_messages_arrive_without_more_behind_them(pair: Pair, directory: Path) -> None:
    async with Pipes(pair) as pipes:
        for number in range(200):
            await pipes.a.send_all(bytes([number]))
            assert await pipes.b.receive_some(10) == bytes([number])
            await pipes.b.send_all(bytes([number]) * 2)
            assert await pipes.a.receive_some(1) == bytes([number])
            assert await pipes.a.receive_some(1) == bytes([number])


async def small_messages_pass_by_a_large_object(pair: Pair, directory: Path) -> None:
    size = 64 * CHUNK
    target = Target(size, memory=bytearray(size))
    async with Pipes(pair) as pipes:
        pair.near.limit(8 * SLOW)
        far = pair.far.receive_object(2, 0, target, chunk_bytes=CHUNK)
        near = pair.near.send_object(2, 0, Source(size, memory=bytes(size)), chunk_bytes=CHUNK)
        await until(lambda: near.progress().done_bytes)
        for _ in range(5):
            await pipes.a.send_all(b"!")
            assert await pipes.b.receive_some(1) == b"!"
        assert near.progress().done_bytes < size
        pair.near.limit(0)
        await finish(near, far)


async def a_reader_that_does_not_read_stops_the_writer(pair: Pair, directory: Path) -> None:
    window, offered = 256 * 1024, content(16 << 20)
    async with Pipes(pair, window=window) as pipes:
        taken = 0

        async def offer() -> None:
            nonlocal taken
            view = memoryview(offered)
            while view:
                count = await pipes.a.socket.send(view[:65536])
                taken += count
                view = view[count:]
            await pipes.a.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(offer)
            before = -1
            while before != (before := taken):
                await trio.sleep(0.3)
            # The window, and what lies in two pairs of sockets.
            assert window // 2 <= taken <= window + (2 << 20)
            # What stands still is no failure, and holds up nobody.
            await link_works(pair)
            assert await read_all(pipes.b) == offered
        await pipes.b.send_eof()
        for one in pipes.moving:
            await one.wait()


async def a_byte_stream_may_come_from_a_pipe_and_go_to_one(pair: Pair, directory: Path) -> None:
    data = content(300_000)
    with ExitStack() as stack:
        ends = [*os.pipe(), *os.pipe()]
        files = [
            stack.enter_context(open(end, mode + "b", 0))
            for end, mode in zip(ends, "rwrw", strict=True)
        ]
        far = pair.far.receive_pipe(1, ends[3], window_bytes=1 << 20)
        near = pair.near.send_pipe(1, ends[0], chunk_bytes=CHUNK, window_bytes=1 << 20)
        files[0].close()
        files[3].close()

        def write() -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(ends[1], view) :]
            files[1].close()

        def read() -> bytes:
            parts = []
            while part := os.read(ends[2], 65536):
                parts.append(part)
            return b"".join(parts)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write)
            # The end is seen once the link has closed its own copy of the writing end.
            nursery.start_soon(finish, near, far)
            assert await trio.to_thread.run_sync(read) == data


async def a_reader_that_went_away_is_known_on_both_ends(pair: Pair, directory: Path) -> None:
    async with Pipes(pair) as pipes:
        receiving, _, sending, _ = pipes.moving
        await pipes.b.aclose()

        async def offer() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await pipes.a.send_all(bytes(65536))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(offer)
            with pytest.raises(TargetWriteError):
                await receiving.wait()
            with pytest.raises(ObjectRefusedError):
                await sending.wait()
            nursery.cancel_scope.cancel()
    await link_works(pair)


# --- Ends -------------------------------------------------------------------------------------


class Everything:
    """Something of each kind, none of which can finish."""

    def __init__(self, pair: Pair) -> None:
        size = 64 * CHUNK
        pair.near.limit(SLOW)
        self.pipes = Pipes(pair, 3)
        self.moving: list[Moving] = [
            pair.far.receive_object(1, 0, Target(size, memory=bytearray(size)), chunk_bytes=CHUNK),
            pair.near.send_object(1, 0, Source(size, memory=content(size)), chunk_bytes=CHUNK),
            *self.pipes.moving,
        ]

    async def all_lose(self) -> None:
        for one in self.moving:
            with pytest.raises(LinkLostError):
                await one.wait()

    async def aclose(self) -> None:
        for one in self.moving:
            await one.aclose()
        await self.pipes.__aexit__()


async def when_the_link_is_lost_everything_on_it_is(pair: Pair, directory: Path) -> None:
    everything = Everything(pair)
    try:
        await until(lambda: everything.moving[1].progress().done_bytes)
        await pair.lose()
        assert isinstance(await pair.near.wait_ended(), DwcpError)
        assert isinstance(await pair.far.wait_ended(), DwcpError)
        await everything.all_lose()
        for link in (pair.near, pair.far):
            with pytest.raises(LinkLostError):
                link.send_object(9, 0, Source(1, memory=b"x"), chunk_bytes=CHUNK)
            with pytest.raises(LinkLostError):
                link.receive_object(9, 0, Target(1, memory=bytearray(1)), chunk_bytes=CHUNK)
    finally:
        await everything.aclose()


async def a_closed_link_ends_what_is_on_it(pair: Pair, directory: Path) -> None:
    everything = Everything(pair)
    try:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(everything.all_lose)
            await trio.sleep(0.05)
            nursery.start_soon(pair.near.aclose)
            nursery.start_soon(pair.far.aclose)
        assert isinstance(await pair.near.wait_ended(), DwcpError)
        await pair.near.aclose()
    finally:
        await everything.aclose()


async def a_link_may_be_closed_while_cancelled(pair: Pair, directory: Path) -> None:
    everything = Everything(pair)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.near.aclose)
            nursery.start_soon(pair.far.aclose)
    await everything.all_lose()
    await everything.aclose()


async def the_statistics_say_what_was_moved(pair: Pair, directory: Path) -> None:
    data = content(9 * CHUNK + 1)
    await move(
        pair,
        Source(len(data), memory=data),
        Target(len(data), memory=bytearray(len(data))),
    )
    near, far = pair.near.statistics(), pair.far.statistics()
    assert near.counters.sent_bytes == far.counters.received_bytes == len(data)
    assert near.counters.wire_sent_bytes >= len(data)
    assert far.counters.wire_received_bytes >= len(data)
    assert near.counters.in_flight_bytes == 0
    assert near.counters.streams == len(near.streams) >= 1
    assert sum(stream.sent_bytes for stream in near.streams) == len(data)
    assert {stream.mover for stream in near.streams} == {pair.near.mover}
    assert pair.near.protocol in (1, 3)
    assert pair.near.max_chunk_bytes == MAX_CHUNK


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
    what_is_urgent_overtakes,
    a_priority_may_change_on_the_way,
    those_of_one_priority_share,
    a_paused_object_stands_still_until_it_goes_on,
    each_object_keeps_its_limit,
    a_link_keeps_its_limit_over_all_objects,
    only_what_is_missing_moves,
    an_object_that_is_there_is_done_at_once,
    another_generation_is_refused,
    an_object_nobody_expects_is_refused,
    a_receiver_that_gives_up_stops_the_sender,
    a_sender_that_gives_up_leaves_the_link_in_order,
    a_full_disk_is_known_on_both_ends,
    a_target_that_cannot_be_written_is_known_on_both_ends,
    a_source_that_shrank_is_known_to_the_sender,
    what_is_closed_while_cancelled_is_closed,
    byte_streams_carry_both_ways_to_their_ends,
    one_direction_may_end_before_the_other,
    a_byte_stream_may_be_empty,
    small_messages_arrive_without_more_behind_them,
    small_messages_pass_by_a_large_object,
    a_reader_that_does_not_read_stops_the_writer,
    a_byte_stream_may_come_from_a_pipe_and_go_to_one,
    a_reader_that_went_away_is_known_on_both_ends,
    when_the_link_is_lost_everything_on_it_is,
    a_closed_link_ends_what_is_on_it,
    a_link_may_be_closed_while_cancelled,
    the_statistics_say_what_was_moved,
]

"""The part of the link contract that is about byte streams."""

from __future__ import annotations

import contextlib
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.errors import (
    ObjectRefusedError,
    TargetWriteError,
)
from novacron.dwcp.amst.transport import Source, Target
from tests.contracts.link_pair import (
    CHUNK,
    SLOW,
    Case,
    Pair,
    content,
    finish,
    link_works,
    until,
)

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


CASES: list[Case] = [
    byte_streams_carry_both_ways_to_their_ends,
    one_direction_may_end_before_the_other,
    a_byte_stream_may_be_empty,
    small_messages_arrive_without_more_behind_them,
    small_messages_pass_by_a_large_object,
    a_reader_that_does_not_read_stops_the_writer,
    a_byte_stream_may_come_from_a_pipe_and_go_to_one,
    a_reader_that_went_away_is_known_on_both_ends,
]

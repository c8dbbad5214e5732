"""Two ends of a link, and what the link contract does with them."""

from __future__ import annotations

import os
import random
import zlib
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from novacron.dwcp.amst.transport import Link, Moving, Source, Target


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


async def link_works(pair: Pair) -> None:
    data, target = content(2 * CHUNK + 1, 9), bytearray(2 * CHUNK + 1)
    await move(pair, Source(len(data), memory=data), Target(len(data), memory=target), 99)
    assert target == data

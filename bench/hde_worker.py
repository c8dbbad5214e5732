"""One end of the encoding bench, steered like :mod:`bench.amst_worker`. It outlives a transfer, whose
link is a new one each time: what an earlier one learned of path and content is forgotten, and the
start of a Python process, which takes longer than many transfers, is not in the way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import trio

from bench.amst_pair import CHUNK_BYTES, WINDOW_BYTES
from bench.amst_worker import cpu_seconds, dial, serve
from novacron._native import hde
from novacron.config.schema import HdeSettings
from novacron.dwcp.amst.congestion import Congestion
from novacron.dwcp.amst.links import SAME_HOST_BPS
from novacron.dwcp.amst.listener import open_data_listener
from novacron.dwcp.amst.native import NativeEngine, NativeLink
from novacron.dwcp.amst.transport import Base, Coding, Moving, Source, Target
from novacron.dwcp.hde.choice import default

_NUMBER = 1
_BASE = 1
_CONTEXT = bytes(32)
_PATIENCE = 30.0
"""Seconds to connect, and to abort what is still moving: neither is a measurement."""
_COMPARED_BYTES = 1 << 20

Answer = dict[str, Any]


class Worker:
    """Its methods are the requests; each returns what is to be answered."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._link: NativeLink | None = None
        self._moving: Moving | None = None
        self._files: list[int] = []

    async def open(self, role: str, host: str, threads: int, same_host: bool) -> Answer:
        self._sender = role == "sender"
        self._host = host
        self._same_host = same_host
        self._congestion = Congestion("auto")
        self._codecs = (*hde.available(), "delta")
        self._engine = await NativeEngine.open(self._nursery, threads=threads)
        if self._sender:
            return {"codecs": self._codecs}
        listener = await open_data_listener(host, 0)
        self._nursery.start_soon(self._listen, listener)
        return {"port": listener.port}

    async def _listen(self, listener: Any) -> None:
        async def serve_tls(connection: Any, address: Any) -> None:
            connection.close()

        await listener.run(
            find_link=lambda link_id: self._link,
            serve_tls=serve_tls,
            prepare=self._congestion.apply,
        )

    async def link(self, link: str, secret: str) -> Answer:
        """A new link, after the last one was closed."""
        assert self._link is None
        self._link = self._engine.open_link(
            peer="bench",
            link_id=bytes.fromhex(link),
            secret=bytes.fromhex(secret),
            context=_CONTEXT,
            initiator=self._sender,
            encrypt=True,
            max_chunk_bytes=CHUNK_BYTES,
            send_window=WINDOW_BYTES,
            receive_window=WINDOW_BYTES,
            codecs=self._codecs,
            link_bps=SAME_HOST_BPS if self._same_host else 0,
        )
        if not self._sender:
            self._nursery.start_soon(self._drain, self._link)
        return {}

    async def _drain(self, link: NativeLink) -> None:
        async for _ in link.stream_events:
            pass

    async def connect(self, port: int, streams: int) -> Answer:
        """The sender's: *streams* connections that are proven at both ends."""
        assert self._link is not None
        link = self._link
        with trio.fail_after(_PATIENCE):
            await dial(link, self._congestion, self._host, port, streams)
        self._nursery.start_soon(self._drain, link)
        choice = self._congestion.last
        return {"congestion": "" if choice is None else choice.got}

    async def expect(self, path: str, size: int, base: str | None) -> Answer:
        """The receiver's, before the sender's ``send``: into a new file, as a node receives one."""
        assert self._link is not None
        self._path = path
        target = self._open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.ftruncate(target, size)
        held = None if base is None else Base(_BASE, fd=self._open(base, os.O_RDONLY))
        self._cpu = cpu_seconds()
        self._moving = self._link.receive_object(
            _NUMBER,
            0,
            Target(size, fd=target, sparse=True, base=held),
            chunk_bytes=CHUNK_BYTES,
        )
        return {}

    async def finish(self, within: float) -> Answer:
        """Wait until everything is written."""
        assert self._moving is not None
        with trio.fail_after(within):
            await self._moving.wait()
        return {"ended": time.monotonic(), "cpu_seconds": cpu_seconds() - self._cpu}

    async def send(
        self,
        path: str,
        size: int,
        base: str | None,
        sparse: bool,
        codec: str,
        level: int,
        within: float,
    ) -> Answer:
        """Send everything, and wait until it was acknowledged. *codec* ``auto`` is a node's default
        setting."""
        assert self._link is not None
        source = self._open(path, os.O_RDONLY)
        held = None if base is None else Base(_BASE, fd=self._open(base, os.O_RDONLY))
        coding = default(HdeSettings()) if codec == "auto" else Coding("fixed", codec, level)
        began, cpu = time.monotonic(), cpu_seconds()
        self._moving = self._link.send_object(
            _NUMBER,
            0,
            Source(size, fd=source, sparse=sparse, coding=coding, base=held),
            chunk_bytes=CHUNK_BYTES,
        )
        with trio.fail_after(within):
            await self._moving.wait()
        return {
            "began": began,
            "ended": time.monotonic(),
            "cpu_seconds": cpu_seconds() - cpu,
            "wire_bytes": self._link.counters().wire_sent_bytes,
            "coding": self._moving.coding().as_json(),
        }

    def _open(self, path: str, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self._files.append(descriptor)
        return descriptor

    async def compare(self, path: str) -> Answer:
        """Whether what was received is what is in *path*, byte for byte. The file is gone then."""
        same = await trio.to_thread.run_sync(same_bytes, self._path, path)
        os.unlink(self._path)
        return {"same": same}

    async def close(self) -> Answer:
        """The link and what moved on it, whether or not that arrived."""
        with trio.fail_after(_PATIENCE):
            if self._moving is not None:
                await self._moving.aclose()
            if self._link is not None:
                await self._link.aclose()
        self._moving = self._link = None
        while self._files:
            os.close(self._files.pop())
        return {}


def same_bytes(one: str, other: str) -> bool:
    with open(one, "rb") as left, open(other, "rb") as right:
        while data := left.read(_COMPARED_BYTES):
            if right.read(_COMPARED_BYTES) != data:
                return False
        return right.read(1) == b""


def main(arguments: Sequence[str] = ()) -> None:
    trio.run(serve, Worker)


if __name__ == "__main__":
    main()

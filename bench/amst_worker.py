"""One end of a link, in a process of its own, so that its CPU time is its own. The AMST benches start
two and steer them by lines of JSON: a request on standard input, an answer on standard output.

Times are of ``CLOCK_MONOTONIC``, which all processes of a machine share: the sender says when it began
and the receiver when the last byte was written.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from novacron._native import tcp
from novacron.config.schema import AmstSettings
from novacron.dwcp.amst.congestion import Congestion
from novacron.dwcp.amst.listener import open_data_listener
from novacron.dwcp.amst.native import NativeEngine, NativeLink
from novacron.dwcp.amst.supervision import NativeSupervisor
from novacron.dwcp.amst.transport import Link, Moving, Source, Target
from novacron.dwcp.amst.v1 import open_link
from novacron.network.tcp_tls import TlsDialer, open_tls_listener
from novacron.network.transport import split_address

_CONTEXT = bytes(32)
_NUMBER = 1
_PATIENCE = 30.0
"""Seconds to connect, and to abort what is still moving: neither is a measurement."""
_COMPARED_BYTES = 1 << 20

Answer = dict[str, Any]


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Content:
    """What is sent or received: a file, mapped with every page present, or its descriptor."""

    def __init__(self, path: str, size: int, *, mapped: bool, writable: bool) -> None:
        self.path = path
        self.size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if writable else os.O_RDONLY
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        if writable:
            # A new file is all zeros, so that what an earlier transfer wrote passes for nothing.
            os.ftruncate(self.fd, size)
        self.memory: mmap.mmap | None = None
        if mapped:
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self.memory = mmap.mmap(self.fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, access)

    def source(self) -> Source:
        if self.memory is not None:
            return Source(self.size, memory=self.memory, stable=True)
        return Source(self.size, fd=self.fd)

    def target(self) -> Target:
        if self.memory is not None:
            return Target(self.size, memory=self.memory)
        return Target(self.size, fd=self.fd)

    def same_as(self, path: str) -> bool:
        with open(path, "rb") as other, open(self.path, "rb") as own:
            while data := other.read(_COMPARED_BYTES):
                if own.read(_COMPARED_BYTES) != data:
                    return False
            return own.read(1) == b""


async def dial(
    link: NativeLink, congestion: Congestion, host: str, port: int, streams: int
) -> None:
    """*streams* connections of *link*, proven at both ends when this returns.

    Raises:
      RuntimeError: one was lost.
    """

    async def dial_one(number: int) -> None:
        connection = trio.socket.socket()
        congestion.apply(connection.fileno(), host)
        await connection.connect((host, port))
        link.add_dialled(socket.socket(fileno=connection.detach()), number)

    async with trio.open_nursery() as nursery:
        for number in range(1, streams + 1):
            nursery.start_soon(dial_one, number)
    up = 0
    async for event in link.stream_events:
        if event.kind != "up":
            raise RuntimeError(f"stream {event.stream_id} was lost: {event.reason}")
        up += 1
        if up == streams:
            return


class Worker:
    """Its methods are the requests; each returns what is to be answered."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._ready = trio.Event()
        self._link: Link | None = None
        self._moving: Moving | None = None
        self._supervisor: NativeSupervisor | None = None

    async def open(self, **request: Any) -> Answer:
        """Content, engine and link; the receiver listens, and says on which port."""
        self._request = request
        self._sender: bool = request["role"] == "sender"
        self._congestion = Congestion(request["congestion"])
        self._content = Content(
            request["path"],
            request["size"],
            mapped=request["mapped"],
            writable=not self._sender,
        )
        if request["protocol"] == 1:
            return await self._open_v1()
        engine = await NativeEngine.open(self._nursery, threads=request["threads"])
        link = self._native = self._link = engine.open_link(
            peer="bench",
            link_id=bytes.fromhex(request["link"]),
            secret=bytes.fromhex(request["secret"]),
            context=_CONTEXT,
            initiator=self._sender,
            encrypt=request["encrypt"],
            max_chunk_bytes=request["chunk_bytes"],
            send_window=request["window_bytes"],
            receive_window=request["window_bytes"],
        )
        if self._sender:
            return {}
        listener = await open_data_listener(request["host"], 0)
        self._nursery.start_soon(self._listen, listener, link)
        self._nursery.start_soon(self._drain, link)
        return {"port": listener.port}

    async def _listen(self, listener: Any, link: NativeLink) -> None:
        async def serve_tls(connection: Any, address: Any) -> None:
            connection.close()

        await listener.run(
            find_link=lambda link_id: link if link_id == link.link_id else None,
            serve_tls=serve_tls,
            prepare=self._congestion.apply,
        )

    async def _drain(self, link: NativeLink) -> None:
        async for _ in link.stream_events:
            pass

    async def connect(self, port: int, streams: int, adaptive: bool = False) -> Answer:
        """The sender's: *streams* connections that are proven at both ends; with *adaptive* as many
        as the node's own controller wants, from that number on."""
        host: str = self._request["host"]
        with trio.fail_after(_PATIENCE):
            if self._request["protocol"] == 1:
                await self._dial_v1(host, port)
                return {"congestion": tcp.default()}
            link = self._native
            if adaptive:
                await self._supervise(host, port, streams)
            else:
                await dial(link, self._congestion, host, port, streams)
                self._nursery.start_soon(self._drain, link)
        choice = self._congestion.last
        return {"congestion": "" if choice is None else choice.got}

    async def _supervise(self, host: str, port: int, start: int) -> None:
        supervisor = self._supervisor = NativeSupervisor(
            self._native,
            host=host,
            port=port,
            initiator=True,
            settings=AmstSettings(congestion=self._request["congestion"]),
            max_streams=256,
            start=start,
            congestion=self._congestion,
        )
        self._nursery.start_soon(supervisor.run)
        # The supervisor alone is told when a stream is up.
        while not any(stream.state == "open" for stream in self._native.streams()):  # noqa: ASYNC110
            await trio.sleep(0.01)

    async def _open_v1(self) -> Answer:
        if self._sender:
            return {}
        listener = await open_tls_listener(
            self._request["host"], 0, lambda: self._tls(ssl.PROTOCOL_TLS_SERVER)
        )

        async def accept() -> None:
            await self._use(await (await listener.accept()).handshake())
            listener.close()

        self._nursery.start_soon(accept)
        return {"port": split_address(listener.address, "")[1]}

    async def _dial_v1(self, host: str, port: int) -> None:
        dialer = TlsDialer(lambda: self._tls(ssl.PROTOCOL_TLS_CLIENT))
        await self._use(await dialer.dial(host, port))

    async def _use(self, stream: Any) -> None:
        self._link = await open_link(
            stream,
            peer="bench",
            max_chunk_bytes=self._request["chunk_bytes"],
            send_window=self._request["window_bytes"],
            receive_window=self._request["window_bytes"],
            nursery=self._nursery,
        )
        self._ready.set()

    def _tls(self, protocol: int) -> ssl.SSLContext:
        certificate = self._request["certificate"]
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(certificate)
        context.load_cert_chain(certificate)
        return context

    # Moving --------------------------------------------------------------------------------------

    async def expect(self) -> Answer:
        """The receiver's, before the sender's ``send``."""
        if self._request["protocol"] == 1:
            with trio.fail_after(_PATIENCE):
                await self._ready.wait()
        assert self._link is not None
        self._began, self._cpu = time.monotonic(), cpu_seconds()
        self._moving = self._link.receive_object(
            _NUMBER, 0, self._content.target(), chunk_bytes=self._request["chunk_bytes"]
        )
        return {}

    async def finish(self, within: float, rename: str | None = None) -> Answer:
        """Wait until everything is written. With *rename* the file is made durable and gets that
        name, as a node does it: ``durable`` says when that was done."""
        assert self._moving is not None
        with trio.fail_after(within):
            await self._moving.wait()
            answer = {"ended": time.monotonic(), "cpu_seconds": cpu_seconds() - self._cpu}
            if rename is not None:
                await trio.to_thread.run_sync(self._make_durable, rename)
                answer["durable"] = time.monotonic()
        return answer

    def _make_durable(self, name: str) -> None:
        os.fdatasync(self._content.fd)
        os.replace(self._content.path, name)
        self._content.path = name
        directory = os.open(Path(name).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    async def send(self, within: float, interval: float = 0.0) -> Answer:
        """Send everything, and wait until it was acknowledged; with an *interval* also how much was
        so far, at many moments."""
        assert self._link is not None
        moments: list[tuple[float, int]] = []
        began, cpu = time.monotonic(), cpu_seconds()
        moving = self._link.send_object(
            _NUMBER, 0, self._content.source(), chunk_bytes=self._request["chunk_bytes"]
        )
        with trio.fail_after(within):
            async with trio.open_nursery() as nursery:
                if interval:
                    nursery.start_soon(_note, moving, interval, moments)
                await moving.wait()
                nursery.cancel_scope.cancel()
        ended, used = time.monotonic(), cpu_seconds() - cpu
        await moving.aclose()
        return {"began": began, "ended": ended, "cpu_seconds": used, "moments": moments}

    async def send_for(self, seconds: float) -> Answer:
        """Send for a time, and leave the rest; with the number of streams and why."""
        began = time.monotonic()
        moving = self._native.send_object(
            _NUMBER, 0, self._content.source(), chunk_bytes=self._request["chunk_bytes"]
        )
        with trio.move_on_after(seconds):
            await moving.wait()
            raise RuntimeError("everything was sent before the time was over")
        streams = [s for s in self._native.streams() if s.state == "open"]
        answer = {
            "began": began,
            "streams": len(streams),
            "rtt_ms": [round(stream.rtt_us / 1000, 2) for stream in streams],
            "counters": self._native.counters()._asdict(),
        }
        if self._supervisor is not None:
            answer["decisions"] = self._supervisor.statistics()["decisions"]
        with trio.fail_after(_PATIENCE):
            await moving.aclose()
        return answer

    async def watch(self, seconds: float, interval: float) -> Answer:
        """The receiver's: how much had come in, at each of many moments. Counted as it is read, since
        a slow stream completes a chunk in many of the intervals; what came twice does not count."""
        moments: list[tuple[float, int, int]] = []
        end = time.monotonic() + seconds
        while True:
            counters = self._native.counters()
            now = time.monotonic()
            came = counters.wire_received_bytes - counters.duplicate_bytes
            moments.append((now, came, counters.received_bytes))
            if now >= end:
                return {"moments": moments}
            await trio.sleep(min(interval, end - now))

    async def compare(self, path: str) -> Answer:
        """Whether what was received is what is in *path*, byte for byte."""
        return {"same": await trio.to_thread.run_sync(self._content.same_as, path)}


async def _note(moving: Moving, interval: float, moments: list[tuple[float, int]]) -> None:
    while True:
        moments.append((time.monotonic(), moving.progress().done_bytes))
        await trio.sleep(interval)


async def _lines() -> Any:
    received = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for data in stream:
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


async def serve(kind: Callable[[trio.Nursery], object]) -> None:
    """Make a worker of *kind* and do what is asked of it, until nothing more is."""
    async with trio.open_nursery() as nursery:
        worker = kind(nursery)
        async for request in _lines():
            method = getattr(worker, request.pop("do"))
            sys.stdout.write(json.dumps(await method(**request)) + "\n")
            sys.stdout.flush()
        # Nothing is closed in order: the process ends here, and the engine's threads with it.
        os._exit(0)


def main(arguments: Sequence[str] = ()) -> None:
    trio.run(serve, Worker)


if __name__ == "__main__":
    main()

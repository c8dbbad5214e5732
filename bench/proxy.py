"""A TCP proxy on the loopback that stands in for the way to a server, and for what goes wrong on it.

    with Proxy(("127.0.0.1", 5432), rtt=0.025) as proxy:
        connect_to(proxy.port)
        proxy.cut()              # every connection is reset
        proxy.mode("silent")     # accepts, forwards nothing; what was sent is kept
        proxy.mode("pass")       # and goes on

It runs in a process of its own, so that neither its work nor its waits are the measured process's.

*rtt* is the round trip a client sees, in seconds: half of it each way, in order. A connection on the
loopback is made at once, one over a real path after a round trip; so the first bytes a client sends
are held back for one *rtt* more, which is when a real client could have sent them.

Modes: ``pass`` forwards, ``silent`` accepts and forwards nothing, ``refuse`` does not listen,
``garbage`` answers whatever comes with bytes that are no protocol. *rate* is bytes a second each way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
from collections import deque
from types import TracebackType
from typing import Any, Literal, Self

from bench.harness import ROOT, BenchError, child_environment, python

Mode = Literal["pass", "silent", "refuse", "garbage"]

_DEADLINE = 20.0
_CHUNK = 65536
_MOST_HELD = 4 * 1024 * 1024
"""Bytes one way may hold before its sender is not read any more: a path has no endless buffers."""
_GARBAGE = bytes(range(255, -1, -1)) * 16
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing resets."""


class Proxy:
    """The process, as a context manager whose end is the process's."""

    def __init__(
        self,
        target: tuple[str, int],
        *,
        rtt: float = 0.0,
        rate: float | None = None,
        mode: Mode = "pass",
    ) -> None:
        """Starts it; returns when :attr:`port` listens on 127.0.0.1.

        Raises:
          BenchError: it did not start.
        """
        self._process = subprocess.Popen(
            python("-m", "bench.proxy"),
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.port = int(
                self._ask(target=list(target), rtt=rtt, rate=rate, mode=mode)["port"],
            )
        except BaseException:
            self.close()
            raise
        self.address = f"127.0.0.1:{self.port}"

    def mode(self, mode: Mode) -> None:
        self._ask(mode=mode)

    def delay(self, rtt: float) -> None:
        """Round trip in seconds, for what is sent from now on."""
        self._ask(rtt=rtt)

    def throttle(self, rate: float | None) -> None:
        """Bytes a second each way; None: no limit."""
        self._ask(rate=rate)

    def cut(self) -> int:
        """Reset every connection, on both sides; how many there were."""
        return int(self._ask(cut=True)["cut"])

    def connections(self) -> int:
        """Connections that clients hold now."""
        return int(self._ask()["connections"])

    def _ask(self, **wanted: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise BenchError("the proxy has ended") from exc
        readable, _, _ = select.select([self._process.stdout], [], [], _DEADLINE)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            raise BenchError("the proxy does not answer")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise BenchError(f"the proxy: {found['error']}")
        return found

    def close(self) -> None:
        """End the process, and with it every connection. Harmless when repeated."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


# --- In the process --------------------------------------------------------------------------------


class _Path:
    """What all connections share."""

    def __init__(self) -> None:
        self.target = ("127.0.0.1", 0)
        self.rtt = 0.0
        self.rate: float | None = None
        self.mode: Mode = "pass"
        self.pairs: set[_Pair] = set()
        self.listener: asyncio.Server | None = None
        self.port = 0
        self.changed = asyncio.Event()

    async def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if "target" in wanted:
            host, port = wanted["target"]
            self.target = (host, int(port))
        self.rtt = float(wanted.get("rtt", self.rtt))
        self.rate = wanted.get("rate", self.rate)
        self.mode = wanted.get("mode", self.mode)
        found: dict[str, Any] = {}
        if wanted.get("cut"):
            found["cut"] = len(self.pairs)
            for pair in list(self.pairs):
                pair.reset()
        await self._listen(self.mode != "refuse")
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        return {"port": self.port, "connections": len(self.pairs), **found}

    async def _listen(self, wanted: bool) -> None:
        if not wanted and self.listener is not None:
            self.listener.close()
            self.listener = None
        if wanted and self.listener is None:
            self.listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = int(self.listener.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(self, reader, writer)
        self.pairs.add(pair)
        try:
            await pair.run()
        except (OSError, asyncio.IncompleteReadError):
            pair.reset()
        finally:
            self.pairs.discard(pair)
            pair.close()


class _Pair:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(
        self, path: _Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._path = path
        self._client = (reader, writer)
        self._writers = [writer]

    async def run(self) -> None:
        if self._path.mode == "garbage":
            await self._babble()
            return
        # What making the connection takes on a real path.
        opened = asyncio.get_running_loop().time() + self._path.rtt
        reader, writer = await asyncio.open_connection(*self._path.target)
        self._writers.append(writer)
        tasks = [
            asyncio.create_task(self._forward(self._client[0], writer, opened)),
            asyncio.create_task(self._forward(reader, self._client[1], 0.0)),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _babble(self) -> None:
        reader, writer = self._client
        while await reader.read(_CHUNK):
            writer.write(_GARBAGE)
            await writer.drain()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float
    ) -> None:
        held: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()
        room = asyncio.Event()
        sender = asyncio.create_task(self._deliver(held, arrived, room, writer))
        loop = asyncio.get_running_loop()
        size = 0
        try:
            while not sender.done():
                data = await reader.read(_CHUNK)
                held.append((max(loop.time(), opened) + self._path.rtt / 2, data))
                arrived.set()
                if not data:
                    break
                size = sum(len(chunk) for _, chunk in held)
                while size > _MOST_HELD and not sender.done():
                    room.clear()
                    await room.wait()
                    size = sum(len(chunk) for _, chunk in held)
            await sender
        finally:
            sender.cancel()

    async def _deliver(
        self,
        held: deque[tuple[float, bytes]],
        arrived: asyncio.Event,
        room: asyncio.Event,
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        path = self._path
        while True:
            while not held:
                arrived.clear()
                await arrived.wait()
            due, data = held[0]
            await asyncio.sleep(max(0.0, due - loop.time()))
            while path.mode == "silent":
                await path.changed.wait()
            if path.mode == "garbage" and writer is self._client[1]:
                data = _GARBAGE
            held.popleft()
            room.set()
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            if path.rate:
                await asyncio.sleep(len(data) / path.rate)

    def reset(self) -> None:
        for writer in self._writers:
            connection: socket.socket | None = writer.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


async def _serve() -> None:
    path = _Path()
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        try:
            found = await path.apply(json.loads(line))
        except (OSError, ValueError) as exc:
            found = {"error": str(exc)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())

"""What a session costs, with real sockets and real TLS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio

from novacron.network.session import PeerSession
from novacron.network.tcp_tls import TlsDialer
from novacron.protocol.party import local_party
from novacron.protocol.states import Role
from tests.network.authority import Authority, Certificates, node_id

SESSIONS = 300
BOUND = 96 * 1024
"""Bytes of resident memory a session of the listening process. Measured: 49 KiB, so that ten
thousand sessions take half a gigabyte."""

ROOT = Path(__file__).parents[2]


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_session_takes_little_memory(authority: Authority) -> None:
    certificate, key = authority.issue(node_id(1))
    process = await trio.lowlevel.open_process(
        [
            sys.executable,
            "-m",
            "tests.network.lone_node",
            str(authority.path),
            str(certificate),
            str(key),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.fail_after(100):
        line = b""
        while not line.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            assert chunk, "the node did not start"
            line += chunk
        host, _, port = line.decode().strip().rpartition(":")

        async with trio.open_nursery() as nursery:
            ready = trio.Semaphore(0)
            slots = trio.CapacityLimiter(8)

            async def hold(number: int) -> None:
                own = node_id(1000 + number)
                certificates = Certificates(authority, own)
                async with slots:
                    stream = await TlsDialer(certificates.client_context).dial(host, int(port))
                    session = PeerSession(
                        stream,
                        Role.INITIATOR,
                        local_party(own, "boot", ping_interval=3600),
                        node_id(1),
                        {},
                        started_at=trio.current_time(),
                    )
                    await session.handshake()
                ready.release()
                await session.run()

            async def grow(first: int, count: int) -> int:
                for number in range(first, first + count):
                    nursery.start_soon(hold, number)
                for _ in range(count):
                    await ready.acquire()
                return resident(process.pid)

            # The first sessions pay for what is imported and pooled once.
            before = await grow(0, 20)
            after = await grow(20, SESSIONS)
            nursery.cancel_scope.cancel()
    process.terminate()
    with trio.fail_after(10):
        await process.wait()
        await process.stdin.aclose()
        await process.stdout.aclose()
    each = (after - before) / SESSIONS
    print(f"{each / 1024:.1f} KiB a session")
    assert 0 < each < BOUND

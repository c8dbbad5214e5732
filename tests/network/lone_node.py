"""A process that is a peer listener and nothing else, so that its memory can be looked at.

``python -m tests.network.lone_node CA CERTIFICATE KEY``: prints its address, ends when its input
does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import trio

from tests.network.authority import Certificates
from tests.network.conftest import Node


class GivenAuthority:
    """An authority that has issued all it will."""

    def __init__(self, path: Path, certificate: Path, key: Path) -> None:
        self.path = path
        self._issued = certificate, key

    def issue(self, node: str, **_: Any) -> tuple[Path, Path]:
        return self._issued


async def main(*paths: Path) -> None:
    authority = cast(Any, GivenAuthority(*paths))
    node = Node(
        1,
        Certificates(authority, ""),
        max_connections_per_peer=100_000,
        ping_interval=3600,
    )
    async with trio.open_nursery() as nursery:
        await node.start(nursery)
        print(node.address, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        await node.network.shutdown()
        nursery.cancel_scope.cancel()


trio.run(main, *map(Path, sys.argv[1:]))

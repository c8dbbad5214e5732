"""``python -m tests.lab.guest.rdma_peer DEVICE SLOTS SLOT_BYTES``: the other end of a channel.

Prints its figures as a line of JSON, reads the other side's from a line of its standard input, prints
"connected", and sends back each message it receives until it is ended.
"""

from __future__ import annotations

import json
import select
import sys
from typing import Any

from novacron._native import rdma

SILENCE_SECONDS = 60.0


def to_json(peer: rdma.Peer) -> str:
    return json.dumps({**peer._asdict(), "gid": peer.gid.hex()})


def from_json(line: str) -> rdma.Peer:
    fields: dict[str, Any] = json.loads(line)
    return rdma.Peer(**{**fields, "gid": bytes.fromhex(fields["gid"])})


def main(name: str, slots: int, slot_bytes: int) -> None:
    with rdma.open_device(name) as device, device.open_channel(slots, slot_bytes) as channel:
        print(to_json(channel.local()), flush=True)
        channel.connect(from_json(sys.stdin.readline()))
        print("connected", flush=True)
        owed: list[bytes] = []
        while select.select([channel], [], [], SILENCE_SECONDS)[0]:
            owed += channel.receive()
            while owed and channel.send(owed[0]):
                del owed[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

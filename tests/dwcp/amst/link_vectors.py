"""The vectors that need keys: schedule, hello, sealed frames. See :mod:`tests.dwcp.amst.vectors`."""

from __future__ import annotations

from typing import Any

from tests.dwcp.amst import reference
from tests.dwcp.amst.vectors import (
    ACCEPTOR,
    ACK,
    CONTEXT,
    DATA,
    INITIATOR,
    LINK_ID,
    SECRET,
    SEGMENT,
    ZERO,
    Case,
)

LINK = {
    "secret": SECRET.hex(),
    "context": CONTEXT.hex(),
}


def keys() -> list[Case]:
    """Keys and ivs of a link, by direction, stream and epoch."""
    places = [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (1, 2**32 - 1, 2**32 - 1)]
    cases = []
    for direction, stream, epoch in places:
        key, iv = reference.key(SECRET, CONTEXT, direction, stream, epoch)
        cases.append(
            {
                "name": f"direction {direction}, stream {stream}, epoch {epoch}",
                "link_id": LINK_ID.hex(),
                "initiator_certificate_sha256": INITIATOR.hex(),
                "acceptor_certificate_sha256": ACCEPTOR.hex(),
                **LINK,
                "seed": reference.seed(SECRET, CONTEXT),
                "direction": direction,
                "stream": stream,
                "epoch": epoch,
                "key": key.hex(),
                "iv": iv.hex(),
            }
        )
    return cases


def hello() -> list[Case]:
    """Both greetings of a stream, and what an acceptor does not take for one."""
    cases = []
    for name, kind, direction, random in (
        ("HELLO", 1, 0, bytes(range(16))),
        ("HELLO_ACK", 2, 1, bytes(range(16, 32))),
    ):
        data = reference.Stream(SECRET, CONTEXT, direction, 7).hello(kind, LINK_ID, random)
        cases.append(
            {
                "name": name,
                "type": kind,
                "direction": direction,
                "stream": 7,
                **LINK,
                "link_id": LINK_ID.hex(),
                "random": random.hex(),
                "bytes": data.hex(),
            }
        )
    return cases


def sealed() -> list[Case]:
    """Whole frames of an encrypted link: header, payload and tag."""
    content = bytes(i * 7 & 0xFF for i in range(100))
    sizes = {"raw_size": 100, "wire_size": 104}
    acks = b"".join(
        reference.acknowledgement({"kind": 1, "object": 3, "offset": offset, "value": 4096})
        for offset in (0, 8192)
    )
    frames: list[tuple[str, dict[str, Any], bytes]] = [
        ("DATA", DATA | sizes, reference.payload(content)),
        ("SEGMENT", SEGMENT, reference.payload(b"0123456789")),
        ("ZERO", ZERO, (1 << 30).to_bytes(8, "big")),
        ("ACK", ACK, acks),
        ("BYE", {"type": 8, "epoch": 2, "sequence": 4712}, b""),
        ("DATA, the next sequence", DATA | sizes | {"sequence": 4712}, reference.payload(content)),
        ("DATA, the next epoch", DATA | sizes | {"epoch": 3}, reference.payload(content)),
        (
            "DATA, the last sequence",
            DATA | sizes | {"sequence": 2**64 - 1},
            reference.payload(content),
        ),
    ]
    cases = []
    for direction in (0, 1):
        stream = reference.Stream(SECRET, CONTEXT, direction, 7)
        for name, fields, clear in frames:
            data = stream.sealed(fields, clear)
            cases.append(
                {
                    "name": f"{name}, direction {direction}",
                    "direction": direction,
                    **LINK,
                    "payload": clear.hex(),
                    "bytes": data.hex(),
                }
            )
    return cases


def forged() -> list[Case]:
    """What of a sealed frame was changed on the way, or put where it does not belong."""
    case = sealed()[0]
    data = bytes.fromhex(case["bytes"])
    end = len(data)
    changed = {
        "payload, first bit": 64 * 8,
        "payload, last bit": (end - 16) * 8 - 1,
        "tag, first bit": (end - 16) * 8,
        "tag, last bit": end * 8 - 1,
    }
    cases = []
    for name, bit in changed.items():
        forgery = bytearray(data)
        forgery[bit // 8] ^= 1 << bit % 8
        cases.append((name, 0, bytes(forgery)))
    other = reference.Stream(SECRET, CONTEXT, 0, 7)
    later = reference.header(DATA | {"raw_size": 100, "wire_size": 104, "offset": 0}, other.seed)
    cases.append(("a header for another place", 0, later + data[64:]))
    cases.append(("sent back to its sender", 1, data))
    return [
        {
            "name": name,
            "direction": direction,
            **LINK,
            "bytes": forgery.hex(),
            "error": "INTEGRITY",
        }
        for name, direction, forgery in cases
    ]

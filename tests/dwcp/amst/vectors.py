"""The vectors of headers and acknowledgements; what ``vector_files.py`` writes.

Every value is fixed, so a vector changes only with the protocol.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tests.dwcp.amst import reference

MIB = 1 << 20
LARGEST_CHUNK = 4 * MIB
END_OF_FILES = 2**63 - 1
SEED = 0x5EED5EED

LINK_ID = bytes(range(0xA0, 0xB0))
SECRET = hashlib.sha256(b"a secret of the test vectors").digest()
INITIATOR = hashlib.sha256(b"the initiator's certificate").digest()
ACCEPTOR = hashlib.sha256(b"the acceptor's certificate").digest()
CONTEXT = reference.context(LINK_ID, INITIATOR, ACCEPTOR)

Case = dict[str, Any]

HELLO = {"type": 1, "stream": 7, "wire_size": 32}
HELLO_ACK = HELLO | {"type": 2}
_PLACE = {"stream": 7, "epoch": 2, "sequence": 4711}
DATA = _PLACE | {
    "type": 3,
    "object": 3,
    "generation": 1,
    "offset": 5 * MIB,
    "raw_size": MIB,
    "wire_size": MIB + 4,
}
ZERO = _PLACE | {"type": 4, "object": 3, "generation": 1, "offset": 6 * MIB, "wire_size": 8}
ACK = _PLACE | {"type": 5, "wire_size": 64}
SEGMENT = DATA | {"type": 6, "generation": 0, "raw_size": 10, "wire_size": 14}
END = _PLACE | {"type": 7, "object": 3, "offset": 12345}
BYE = _PLACE | {"type": 8}
GOOD = {
    "HELLO": HELLO,
    "HELLO_ACK": HELLO_ACK,
    "DATA": DATA,
    "ZERO": ZERO,
    "ACK": ACK,
    "SEGMENT": SEGMENT,
    "END": END,
    "BYE": BYE,
}
_LAST_CHUNK = {"raw_size": 1, "wire_size": 5}


def headers() -> list[Case]:
    """Headers that are taken."""
    cases: list[tuple[str, dict[str, int], int]] = [(name, f, MIB) for name, f in GOOD.items()]
    cases += [
        ("a chunk of zstd", DATA | {"codec": 2, "wire_size": 5}, MIB),
        ("a delta", DATA | {"flags": 1, "base": 7, "wire_size": 13}, MIB),
        ("a delta of lz4", DATA | {"flags": 1, "codec": 1, "base": 2**32 - 1}, MIB),
        (
            "every field at its largest",
            DATA
            | {
                "stream": 2**32 - 1,
                "epoch": 2**32 - 1,
                "sequence": 2**64 - 1,
                "object": 2**32 - 1,
                "generation": 2**32 - 1,
                "offset": END_OF_FILES - LARGEST_CHUNK,
                "raw_size": LARGEST_CHUNK,
                "wire_size": LARGEST_CHUNK + 4,
            },
            LARGEST_CHUNK,
        ),
        ("DATA of one byte", DATA | _LAST_CHUNK, 65536),
        ("DATA that ends where files do", DATA | {"offset": END_OF_FILES - MIB}, MIB),
        ("SEGMENT that ends where files do", SEGMENT | {"offset": END_OF_FILES - 10}, MIB),
        ("ZERO at the start", ZERO | {"offset": 0}, MIB),
        ("one acknowledgement", ACK | {"wire_size": 32}, MIB),
        ("127 acknowledgements", ACK | {"wire_size": 127 * 32}, MIB),
        ("END of an empty byte stream", END | {"offset": 0}, MIB),
        ("END where files end", END | {"offset": END_OF_FILES}, MIB),
    ]
    return [
        {
            "name": name,
            "seed": SEED,
            "max_chunk": max_chunk,
            "fields": {field: fields.get(field, 0) for field in reference.FIELDS},
            "bytes": reference.header(fields, SEED).hex(),
        }
        for name, fields, max_chunk in cases
    ]


CHECKSUM = "a header whose checksum does not hold, or of another link"
SIZE = "a payload of another size than its type has"
NAMED = "a control frame that names an object"
HELLO_SIZE, HELLO_FIRST = "a hello of another size", "a hello that is not the first frame"
HELLO_NAMED = "a hello that names an object"
CONTENT = "content of no bytes, or of more than was agreed"
PAYLOAD = "a payload that is not the content and its checksum"
BEYOND, MARK_BEYOND = "content beyond the end of any file", "a mark beyond the end of any file"


def invalid_headers() -> list[Case]:
    """Headers that are refused, with the reason both implementations give."""
    made = reference.header
    flipped = bytearray(made(DATA, SEED))
    flipped[33] ^= 0x40
    cases: list[tuple[str, bytes, str]] = [
        ("HTTP", b"GET / HTTP/1.1\r\n".ljust(64, b" "), "not a frame: it begins with 47455420"),
        ("TLS", b"\x16\x03\x01".ljust(64, b"\0"), "not a frame: it begins with 16030100"),
        ("nothing but zeros", bytes(64), "not a frame: it begins with 00000000"),
        ("version 2", made(DATA, SEED, version=2), "a frame of version 2, not 3"),
        ("version 4", made(DATA, SEED, version=4, check=0), "a frame of version 4, not 3"),
        ("a flipped bit", bytes(flipped), CHECKSUM),
        ("the seed of another link", made(DATA, SEED ^ 1), CHECKSUM),
        ("no seed", made(DATA, 0), CHECKSUM),
        *(
            (
                f"reserved byte {place}",
                made(DATA, SEED, reserved=bytes(place) + b"\1" + bytes(7 - place)),
                "a header whose reserved bytes are in use",
            )
            for place in (0, 7)
        ),
    ]
    changes: list[tuple[str, dict[str, int], str]] = [
        ("type 0", DATA | {"type": 0}, "an unknown type"),
        ("type 9", DATA | {"type": 9}, "an unknown type"),
        ("type 255", DATA | {"type": 255}, "an unknown type"),
        ("a flag", DATA | {"flags": 128}, "unknown flags"),
        ("codec 3", DATA | {"codec": 3}, "an unknown codec"),
        ("a codec in a ZERO", ZERO | {"codec": 1}, "an unknown codec"),
        ("a delta in a ZERO", ZERO | {"flags": 1, "base": 1}, "unknown flags"),
        ("a base", DATA | {"base": 1}, "a base without a delta, or a delta without a base"),
        ("a delta", DATA | {"flags": 1}, "a base without a delta, or a delta without a base"),
        ("coded, of no bytes", DATA | {"codec": 2, "wire_size": 4}, "coded content of no bytes"),
        (
            "a delta of no bytes",
            DATA | {"flags": 1, "base": 7, "wire_size": 12},
            "coded content of no bytes",
        ),
        (
            "coded, and larger",
            DATA | {"codec": 1, "wire_size": DATA["wire_size"] + 1},
            "coded content that is larger than the content",
        ),
        ("HELLO of 31 bytes", HELLO | {"wire_size": 31}, HELLO_SIZE),
        ("HELLO with content", HELLO | {"raw_size": 32}, HELLO_SIZE),
        ("HELLO of a later epoch", HELLO | {"epoch": 1}, HELLO_FIRST),
        ("HELLO_ACK of a later sequence", HELLO_ACK | {"sequence": 1}, HELLO_FIRST),
        ("HELLO of an object", HELLO | {"object": 1}, HELLO_NAMED),
        ("HELLO_ACK of a generation", HELLO_ACK | {"generation": 1}, HELLO_NAMED),
        ("HELLO at an offset", HELLO | {"offset": 1}, HELLO_NAMED),
        ("DATA of nothing", DATA | {"raw_size": 0, "wire_size": 4}, CONTENT),
        (
            "DATA of more than was agreed",
            DATA | {"raw_size": MIB + 1, "wire_size": MIB + 5},
            CONTENT,
        ),
        ("DATA of 4 GiB", DATA | {"raw_size": 2**32 - 1, "wire_size": 3}, CONTENT),
        ("DATA without a checksum", DATA | {"wire_size": MIB}, PAYLOAD),
        ("SEGMENT with a tail", SEGMENT | {"wire_size": 15}, PAYLOAD),
        ("DATA of no object", DATA | {"object": 0}, "content of no object"),
        ("DATA beyond the end", DATA | {"offset": END_OF_FILES - MIB + 1}, BEYOND),
        ("DATA at the last offset", DATA | {"offset": 2**64 - 1}, BEYOND),
        ("SEGMENT beyond the end", SEGMENT | {"offset": END_OF_FILES - 9}, BEYOND),
        ("ZERO of 16 bytes", ZERO | {"wire_size": 16}, SIZE),
        ("ZERO with content", ZERO | {"raw_size": 8}, SIZE),
        ("ZERO of no object", ZERO | {"object": 0}, "a mark in no object"),
        ("ZERO beyond the end", ZERO | {"offset": END_OF_FILES + 1}, MARK_BEYOND),
        ("END with a payload", END | {"wire_size": 1}, SIZE),
        ("END of no object", END | {"object": 0}, "a mark in no object"),
        ("END beyond the end", END | {"offset": 2**64 - 1}, MARK_BEYOND),
        ("no acknowledgements", ACK | {"wire_size": 0}, SIZE),
        ("128 acknowledgements", ACK | {"wire_size": 128 * 32}, SIZE),
        ("one and a half acknowledgements", ACK | {"wire_size": 48}, SIZE),
        ("ACK with content", ACK | {"raw_size": 1}, SIZE),
        ("ACK of an object", ACK | {"object": 3}, NAMED),
        ("BYE with a payload", BYE | {"wire_size": 1}, SIZE),
        ("BYE of a generation", BYE | {"generation": 1}, NAMED),
        ("BYE at an offset", BYE | {"offset": 1}, NAMED),
    ]
    cases += [(name, made(fields, SEED), reason) for name, fields, reason in changes]
    made_cases = [
        {
            "name": name,
            "seed": SEED,
            "max_chunk": MIB,
            "bytes": data.hex(),
            "error": "PROTOCOL",
            "reason": reason,
        }
        for name, data, reason in cases
    ]
    over = DATA | {"raw_size": LARGEST_CHUNK + 1, "wire_size": LARGEST_CHUNK + 5}
    made_cases.append(
        made_cases[-1]
        | {
            "name": "DATA over the largest chunk, whatever was agreed",
            "max_chunk": 2**32 - 1,
            "bytes": made(over, SEED).hex(),
            "reason": CONTENT,
        }
    )
    return made_cases


def acks() -> list[Case]:
    """Acknowledgements that are taken."""
    cases: list[tuple[str, dict[str, int]]] = [
        (
            "CHUNK",
            {"kind": 1, "object": 3, "generation": 1, "offset": 5 * MIB, "value": MIB},
        ),
        (
            "ZERO of 1 TiB",
            {"kind": 2, "object": 3, "generation": 1, "offset": 6 * MIB, "value": 1 << 40},
        ),
        ("SEGMENT", {"kind": 3, "object": 9, "offset": 100, "value": 10}),
        ("SEGMENT of nothing: the END", {"kind": 3, "object": 9, "offset": 110}),
        ("READ", {"kind": 4, "object": 9, "offset": 110}),
        ("READ of nothing", {"kind": 4, "object": 9}),
        ("REFUSED NOT_FOUND", {"kind": 5, "object": 3, "generation": 2, "value": 6}),
        ("REFUSED SYSTEM, ENOSPC", {"kind": 5, "object": 3, "offset": 28, "value": 1}),
        ("REFUSED for a reason to come", {"kind": 5, "object": 3, "value": 65535}),
        (
            "BASE",
            {"kind": 6, "object": 3, "generation": 1, "offset": 5 * MIB, "value": MIB},
        ),
        ("the largest CHUNK", {"kind": 1, "object": 2**32 - 1, "value": LARGEST_CHUNK}),
        ("ZERO of a whole file", {"kind": 2, "object": 1, "value": END_OF_FILES}),
        ("READ where files end", {"kind": 4, "object": 1, "offset": END_OF_FILES}),
        (
            "CHUNK where files end",
            {
                "kind": 1,
                "object": 1,
                "generation": 2**32 - 1,
                "offset": END_OF_FILES - 1,
                "value": 1,
            },
        ),
    ]
    return [
        {
            "name": name,
            "fields": {field: fields.get(field, 0) for field in reference.ACK_FIELDS},
            "bytes": reference.acknowledgement(fields).hex(),
        }
        for name, fields in cases
    ]


def invalid_acks() -> list[Case]:
    """Acknowledgements that are refused."""
    made = reference.acknowledgement
    chunk = {"kind": 1, "object": 3, "generation": 1, "offset": MIB, "value": MIB}
    used = "an acknowledgement whose reserved bytes are in use"
    cases: list[tuple[str, bytes, str]] = [
        ("kind 0", made(chunk | {"kind": 0}), "an acknowledgement of kind 0"),
        ("kind 7", made(chunk | {"kind": 7}), "an acknowledgement of kind 7"),
        ("the first reserved bytes", made(chunk, first=b"\0\0\1"), used),
        ("the second reserved bytes", made(chunk, second=b"\1\0\0\0"), used),
        ("no object", made(chunk | {"object": 0}), "an acknowledgement of no object"),
    ]
    values: list[tuple[str, dict[str, int]]] = [
        ("CHUNK of nothing", chunk | {"value": 0}),
        ("CHUNK of more than the largest", chunk | {"value": LARGEST_CHUNK + 1}),
        ("SEGMENT of 16 EiB", chunk | {"kind": 3, "value": 2**64 - 1}),
        ("CHUNK beyond the end", chunk | {"offset": END_OF_FILES - MIB + 1}),
        ("ZERO of nothing", chunk | {"kind": 2, "value": 0}),
        ("ZERO beyond the end", chunk | {"kind": 2, "value": END_OF_FILES}),
        ("BASE of nothing", chunk | {"kind": 6, "value": 0}),
        ("READ with a value", chunk | {"kind": 4, "value": 1}),
        ("READ beyond the end", chunk | {"kind": 4, "value": 0, "offset": END_OF_FILES + 1}),
        ("REFUSED for no reason", chunk | {"kind": 5, "offset": 0, "value": 0}),
        ("REFUSED with too large a number", chunk | {"kind": 5, "offset": 0, "value": 65536}),
        ("REFUSED with too large an errno", chunk | {"kind": 5, "offset": 4096, "value": 1}),
    ]
    cases += [
        (
            name,
            made(f),
            f"an acknowledgement of kind {f['kind']} at {f['offset']} with {f['value']}",
        )
        for name, f in values
    ]
    return [
        {"name": name, "bytes": data.hex(), "error": "PROTOCOL", "reason": reason}
        for name, data, reason in cases
    ]

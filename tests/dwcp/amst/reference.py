"""AMST's frames and key schedule once more, from the specification alone.

Shares nothing with the product: standard library, and ``cryptography`` for AES-GCM. The vectors
are made with it, and the two implementations are held to those.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FIELDS = (
    "type",
    "flags",
    "codec",
    "stream",
    "epoch",
    "sequence",
    "object",
    "generation",
    "offset",
    "raw_size",
    "wire_size",
    "base",
)
ACK_FIELDS = ("kind", "object", "generation", "offset", "value")


def header(
    fields: dict[str, int],
    seed: int,
    *,
    magic: bytes = b"NCA3",
    version: int = 3,
    reserved: bytes = bytes(8),
    check: int | None = None,
) -> bytes:
    """64 bytes; what *fields* does not name is 0. Nothing is checked, and *check* may be wrong."""
    v = [fields.get(name, 0) for name in FIELDS]
    start = magic + struct.pack(">BBBBIIQIIQIII", version, *v) + reserved
    return start + struct.pack(">I", zlib.crc32(start, seed) if check is None else check)


def acknowledgement(
    fields: dict[str, int], *, first: bytes = bytes(3), second: bytes = bytes(4)
) -> bytes:
    """32 bytes; *first* and *second* are the reserved ones."""
    kind, number, generation, offset, value = (fields.get(name, 0) for name in ACK_FIELDS)
    return b"".join(
        (
            struct.pack(">B", kind),
            first,
            struct.pack(">II", number, generation),
            second,
            struct.pack(">QQ", offset, value),
        )
    )


def payload(content: bytes) -> bytes:
    """Of DATA and SEGMENT: the content and its checksum."""
    return content + struct.pack(">I", zlib.crc32(content))


# --- Keys -------------------------------------------------------------------------------------


def extract(salt: bytes, material: bytes) -> bytes:
    return hmac.digest(salt, material, "sha256")


def expand(secret: bytes, info: bytes, size: int) -> bytes:
    out = block = b""
    counter = 1
    while len(out) < size:
        block = hmac.digest(secret, block + info + bytes([counter]), "sha256")
        out += block
        counter += 1
    return out[:size]


def context(link_id: bytes, initiator: bytes, acceptor: bytes) -> bytes:
    """*initiator* and *acceptor* are the SHA-256 of their certificates."""
    return hashlib.sha256(link_id + initiator + acceptor).digest()


def key(
    secret: bytes, context: bytes, direction: int, stream: int, epoch: int
) -> tuple[bytes, bytes]:
    info = b"novacron amst v3 key" + context + struct.pack(">BII", direction, stream, epoch)
    made = expand(secret, info, 44)
    return made[:32], made[32:]


def seed(secret: bytes, context: bytes) -> int:
    return int.from_bytes(expand(secret, b"novacron amst v3 seed" + context, 4), "big")


def nonce(iv: bytes, sequence: int) -> bytes:
    return (int.from_bytes(iv, "big") ^ sequence).to_bytes(12, "big")


# --- Frames on a link ---------------------------------------------------------------------------


class Stream:
    """One direction of one stream: seals what is given to it."""

    def __init__(self, secret: bytes, context: bytes, direction: int, number: int) -> None:
        self.secret, self.context = secret, context
        self.direction, self.number = direction, number
        self.seed = seed(secret, context)

    def sealed(self, fields: dict[str, Any], clear: bytes) -> bytes:
        """Header, encrypted payload, tag."""
        head = header(fields | {"stream": self.number}, self.seed)
        return head + self._cipher(fields).encrypt(self._nonce(fields), clear, head)

    def hello(self, kind: int, link_id: bytes, random: bytes) -> bytes:
        """Header, payload in clear, tag over both."""
        fields = {"type": kind, "stream": self.number, "wire_size": 32}
        clear = header(fields, self.seed) + link_id + random
        return clear + self._cipher(fields).encrypt(self._nonce(fields), b"", clear)

    def _cipher(self, fields: dict[str, Any]) -> AESGCM:
        return AESGCM(self._key(fields)[0])

    def _nonce(self, fields: dict[str, Any]) -> bytes:
        return nonce(self._key(fields)[1], fields.get("sequence", 0))

    def _key(self, fields: dict[str, Any]) -> tuple[bytes, bytes]:
        return key(self.secret, self.context, self.direction, self.number, fields.get("epoch", 0))

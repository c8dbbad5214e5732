"""Dictionaries for messages, as files: ``docs/reference/message-encoding.md`` has the layout.

A zstd dictionary that is cut short or changed is still one to zstd, and would make garbage of what
it decodes; so a file says how long its dictionary is and what its SHA-256 is.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from novacron.dwcp.hde.errors import DictionaryError
from novacron.record import Record

MAGIC: Final = b"NCZD"
FORMAT: Final = 1
HEADER: Final = struct.Struct(">4sBxHI32s")
"""Magic, format, a zero, id, bytes of the dictionary, its SHA-256."""
ZSTD_MAGIC: Final = b"\x37\xa4\x30\xec"
"""What a zstd dictionary begins with, RFC 8878, 5."""
MAX_BYTES: Final = 256 * 1024
"""Of a dictionary. Past a few ten KiB they do not gain anything here; what is read is bounded."""
SHIPPED: Final = Path(__file__).parent / "dictionaries"
RETRAINED: Final = 0x8000
"""Ids from here on are of dictionaries that operators made, and come from their content: two that
differ hardly ever share one, and where they do, their hashes still differ."""
KEY: Final = "dwcp.hde.dictionary"


class Dictionary(Record):
    id: int
    digest: bytes
    """SHA-256."""
    content: bytes
    """As zstd takes it."""
    path: str

    @property
    def retrained(self) -> bool:
        return self.id >= RETRAINED


def retrained_id(content: bytes) -> int:
    return RETRAINED | int.from_bytes(hashlib.sha256(content).digest()[:2], "big")


def file_of(id: int, content: bytes) -> bytes:
    """What a file of it holds."""
    digest = hashlib.sha256(content).digest()
    return HEADER.pack(MAGIC, FORMAT, id, len(content), digest) + content


def read_dictionary(path: Path, *, key: str = "") -> Dictionary:
    """The dictionary in the file *path*. Blocks on the disk.

    Args:
      key: The configuration key that names the file, for the error.

    Raises:
      DictionaryError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(HEADER.size + MAX_BYTES + 1)
    except OSError as exc:
        raise _unusable(path, exc.strerror or str(exc), key) from exc
    if len(data) < HEADER.size:
        raise _unusable(path, f"it ends after {len(data)} bytes, within its header", key)
    magic, format, id, size, digest = HEADER.unpack_from(data)
    content = data[HEADER.size :]
    if magic != MAGIC:
        fault = "it is no dictionary of novacron"
    elif format != FORMAT:
        fault = f"its format is {format}, and this version reads {FORMAT}"
    elif size > MAX_BYTES:
        fault = f"it says that its dictionary has {size} bytes, and {MAX_BYTES} are the most"
    elif len(content) < size:
        fault = f"it was cut short: {len(content)} of {size} bytes are there"
    elif len(content) > size:
        fault = f"bytes follow the {size} of its dictionary"
    elif hashlib.sha256(content).digest() != digest:
        fault = "it is damaged: its SHA-256 is another one"
    elif not content.startswith(ZSTD_MAGIC):
        fault = "what is in it is no zstd dictionary"
    elif id == 0 or (id >= RETRAINED and id != retrained_id(content)):
        fault = f"its id cannot be {id}"
    else:
        return Dictionary(id, digest, content, str(path))
    raise _unusable(path, fault, key)


def _unusable(path: Path, why: str, key: str) -> DictionaryError:
    remedy = (
        "copy the file there again, make a new one with novacron hde train, or unset the key; until "
        "then the node does without it"
        if key
        else "install novacron again; until then the node does without it"
    )
    return DictionaryError(
        f"cannot use the dictionary {path} for messages", why=why, remedy=remedy, key=key
    )


def shipped_paths() -> Iterator[Path]:
    """Of the package's own, the newest first. An old one stays as long as nodes that have no newer
    one are about."""
    numbered = [(int(path.stem), path) for path in SHIPPED.glob("*.zdict") if path.stem.isdecimal()]
    for _, path in sorted(numbered, reverse=True):
        yield path

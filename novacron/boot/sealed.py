"""JSON in a file with a checksum over it, so that a damaged file is found and never believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from novacron.component import JsonObject
from novacron.durable import write_durably

FORMAT = 1


class DamagedFileError(ValueError):
    """The file is not what was written: truncated, zeroed, flipped bits, or of a later format."""


def seal(body: JsonObject) -> bytes:
    """*body* as one JSON object with its SHA-256."""
    text = json.dumps(body, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"format":{FORMAT},"sha256":"{digest}","body":{text}}}\n'.encode()


def unseal(data: bytes) -> JsonObject:
    """Raises DamagedFileError unless *data* is exactly what :func:`seal` made."""
    try:
        wrapper: Any = json.loads(data)
        body = wrapper["body"]
        if not isinstance(body, dict):
            raise DamagedFileError("it is not a sealed JSON object")
        sealed = seal(body)
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        if isinstance(exc, DamagedFileError):
            raise
        raise DamagedFileError("it is not a sealed JSON object") from exc
    if sealed != data:
        raise DamagedFileError("its checksum does not match")
    return body


def write_sealed(path: Path, body: JsonObject) -> None:
    """Blocks on the disk. Raises OSError; the old content stays then."""
    write_durably(path, seal(body))


def read_sealed(path: Path) -> JsonObject | None:
    """The body, None where there is no file.

    Raises:
      DamagedFileError: the content cannot be believed.
      OSError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return unseal(data)

"""Small state files: canonical JSON with a checksum, and times as text.

The checksum tells damage from a wrong key or an old version; it keeps no one from writing.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Stamp = tuple[int, int, int]


def canonical(value: Any) -> bytes:
    """*value* as the one JSON text there is for it: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def encode(body: dict[str, Any]) -> bytes:
    """A file's bytes: *body*, with its checksum, readable by people."""
    whole = {**body, "checksum": hashlib.sha256(canonical(body)).hexdigest()}
    return json.dumps(whole, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def decode(data: bytes) -> dict[str, Any]:
    """The body :func:`encode` was given.

    Raises:
      ValueError: the bytes are damaged; the message says how, and holds none of them.
    """
    if not data.strip(b"\0 \r\n\t"):
        raise ValueError("it is empty")
    try:
        body = json.loads(data)
    except ValueError:
        # The decoder's own message quotes nothing, but its exception holds the document.
        raise ValueError("it is not JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(body, dict):
        raise ValueError("it is not a JSON object")
    checksum = body.pop("checksum", None)
    try:
        expected = hashlib.sha256(canonical(body)).hexdigest()
    except ValueError:
        raise ValueError("it holds a number that JSON does not have") from None
    if checksum != expected:
        raise ValueError("its checksum does not match")
    return body


def stamp(path: Path) -> Stamp | None:
    """What changes when *path* is replaced; None when it is not there. Where it cannot be looked at,
    that is a change as well: whoever reads it then is told why."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        return (0, 0, -(exc.errno or 1))
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def to_text(epoch: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the microsecond."""
    return (
        datetime.fromtimestamp(epoch, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def from_text(text: Any) -> float:
    """Seconds since the epoch.

    Raises:
      ValueError: *text* is no such time.
    """
    if not isinstance(text, str):
        raise ValueError("a time is not text")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time has no time zone")
    return moment.timestamp()

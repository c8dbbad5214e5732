"""One join token: ``ncj_<id>_<secret>_<hash>``, and what the authority's node keeps of it.

The hash is that of the authority's public key (:func:`novacron.security.inspection.key_hash`): who
is handed the token can tell the authority from everybody else before showing it to anyone (ADR
122). It is public and not part of the secret; only ``ncj_<id>_<secret>`` ever goes over the wire.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from typing import Any

from novacron.record import Record
from novacron.security import documents
from novacron.security.errors import JoinTokenError

PREFIX = "ncj"
SECRET_BYTES = 32
"""256 random bits: nothing to guess, so that a plain hash of it is kept and no stretched one."""
_TEXT = re.compile(r"(ncj_([0-9a-f]{16})_[A-Za-z0-9_-]{43})_([0-9a-f]{64})")
_SECRET = re.compile(r"ncj_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


class JoinTokenText(Record):
    """What is printed, taken apart."""

    id: str
    secret: str
    """What the authority's node is shown."""
    authority: str
    """SHA-256 of the authority's public key, hexadecimal."""


def new_secret(id: str) -> str:
    return f"{PREFIX}_{id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def parse(text: str) -> JoinTokenText:
    """
    Raises:
      JoinTokenError: *text* is no join token; says what it looks like, and repeats nothing of it.
    """
    text = text.strip()
    found = _TEXT.fullmatch(text)
    if found is not None:
        return JoinTokenText(found[2], found[1], found[3])
    why = "it does not have the form ncj_<id>_<secret>_<authority>"
    if text.startswith("nct_"):
        why = "it is an API token, which lets nobody join"
    elif _SECRET.match(text) is not None:
        why = "its end is missing: it was not copied whole"
    elif not text:
        why = "it is empty"
    raise JoinTokenError(
        "cannot use the join token",
        why=why,
        remedy="make one with `novacron token create --role node --ttl 10m` on the authority's "
        "node, and copy all of it",
    )


def id_of(secret: str) -> str | None:
    """The id in what the authority's node is shown; None when it cannot be a join token."""
    found = _SECRET.fullmatch(secret)
    return found[1] if found is not None else None


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class JoinToken(Record):
    """What is kept. Times are seconds since the epoch."""

    id: str
    name: str
    hash: bytes
    created: float
    expires: float
    node_id: str | None = None
    """The only node it lets in; None for any."""
    revoked: float | None = None
    used: float | None = None
    used_by: str = ""
    """Node id of who used it."""
    used_key: str = ""
    """Hash of the public key it was used for: the same may ask again, and no other."""

    def state(self, now: float) -> str:
        if self.revoked is not None:
            return "revoked"
        if self.used is not None:
            return "used"
        return "active" if now < self.expires else "expired"

    def describe(self, now: float) -> dict[str, Any]:
        """For people: no hash. The same keys as an API token's, and who used it."""
        return {
            "id": self.id,
            "name": self.name,
            "role": "node",
            "created": documents.to_text(self.created),
            "expires": documents.to_text(self.expires),
            "state": self.state(now),
            "node_id": self.used_by or self.node_id,
        }

    def document(self) -> dict[str, Any]:
        return {**self._asdict(), "hash": base64.b64encode(self.hash).decode()}


def from_document(entry: Any) -> JoinToken:
    """
    Raises:
      ValueError: a field is missing or wrong.
    """
    try:
        return JoinToken(
            str(entry["id"]),
            str(entry["name"]),
            base64.b64decode(entry["hash"], validate=True),
            float(entry["created"]),
            float(entry["expires"]),
            None if entry["node_id"] is None else str(entry["node_id"]),
            None if entry["revoked"] is None else float(entry["revoked"]),
            None if entry["used"] is None else float(entry["used"]),
            str(entry["used_by"]),
            str(entry["used_key"]),
        )
    except (KeyError, TypeError, binascii.Error) as exc:
        raise ValueError("a field is missing or wrong") from exc

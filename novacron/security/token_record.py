"""One API token: its text, and what is kept of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any, Literal

from novacron.security import documents
from novacron.security.errors import TokenInvalidError
from novacron.security.resources import EVERYTHING
from novacron.security.roles import Role

PREFIX = "nct"
"""Of a node's own tokens."""
CLUSTER_PREFIX = "ncc"
"""Of those that every node of a cluster takes."""
LONGEST_NAME = 64
LONGEST_SECRET = 256
LONGEST_TTL = 3650 * 86400.0
LONGEST_GRACE = 30 * 86400.0
"""Seconds that a secret which was replaced may still be accepted."""

Former = tuple[bytes, float]
"""The hash of a secret that was replaced, and until when it is accepted."""


class Token:
    """What is known of a token; not the token."""

    __slots__ = (
        "created",
        "expires",
        "former",
        "hash",
        "id",
        "name",
        "resources",
        "revoked",
        "role",
    )

    def __init__(
        self,
        id: str,
        name: str,
        role: Role,
        hash: bytes,
        created: float,
        expires: float | None,
        revoked: float | None = None,
        resources: tuple[str, ...] = EVERYTHING,
        former: tuple[Former, ...] = (),
    ) -> None:
        self.id = id
        self.name = name
        self.role = role
        self.hash = hash
        self.created = created
        self.expires = expires
        self.revoked = revoked
        self.resources = resources
        self.former = former

    def __repr__(self) -> str:
        return f"Token({self.id}, {self.role.value})"

    def usable(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)

    def accepts(self, hash: bytes, now: float) -> Literal["current", "former"] | None:
        """Whether a secret with that *hash* is the token's, or was until lately."""
        found: Literal["current", "former"] | None = None
        for known, until in self.former:
            # All are compared, so that how long it takes tells nothing.
            if hmac.compare_digest(known, hash) and now < until:
                found = "former"
        return "current" if hmac.compare_digest(self.hash, hash) else found

    def former_until(self, now: float) -> float | None:
        """Until when a secret that was replaced is accepted; None when none is."""
        return max((until for _, until in self.former if now < until), default=None)

    def state(self, now: float) -> str:
        if self.revoked is not None:
            return "revoked"
        return "active" if self.usable(now) else "expired"

    def describe(self, now: float) -> dict[str, Any]:
        """For people and the API: no hash."""
        former = self.former_until(now) if self.usable(now) else None
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.value,
            "resources": list(self.resources),
            "created": documents.to_text(self.created),
            "expires": None if self.expires is None else documents.to_text(self.expires),
            "state": self.state(now),
            "former_until": None if former is None else documents.to_text(former),
        }

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.value,
            "hash": base64.b64encode(self.hash).decode(),
            "created": self.created,
            "expires": self.expires,
            "revoked": self.revoked,
            "resources": list(self.resources),
            "former": [
                {"hash": base64.b64encode(hash).decode(), "until": until}
                for hash, until in self.former
            ],
        }


class CreatedToken:
    """A new token. Nothing gives :attr:`secret` a second time."""

    __slots__ = ("id", "secret")

    def __init__(self, id: str, secret: str) -> None:
        self.id = id
        self.secret = secret

    def __repr__(self) -> str:
        return f"CreatedToken({self.id})"


def new_secret(id: str, prefix: str = PREFIX) -> str:
    return f"{prefix}_{id}_{secrets.token_urlsafe(32)}"


def split_token(text: str, prefix: str = PREFIX) -> str | None:
    """The id in a token; None when it cannot be a token with *prefix*."""
    parts = text.split("_", 2)
    if len(text) > LONGEST_SECRET or len(parts) != 3 or parts[0] != prefix or not parts[2]:
        return None
    return parts[1]


def hash_token(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def check_role(role: Role | str) -> Role:
    try:
        checked = Role(role)
    except ValueError:
        checked = Role.NODE
    if checked in (Role.NODE, Role.JOIN):
        # A node proves who it is with its certificate; who joins has a token of another kind.
        raise TokenInvalidError(
            "cannot make the token",
            why="its role is none of viewer, operator, admin",
            remedy="choose the least of the three that does",
        )
    return checked


def check_name(name: str) -> None:
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise TokenInvalidError(
            "cannot make the token",
            why=f"its name is not 1 to {LONGEST_NAME} printable characters",
            remedy="name whoever will use it",
        )


def check_ttl(ttl: float | None) -> None:
    if ttl is not None and not 1 <= ttl <= LONGEST_TTL:
        raise TokenInvalidError(
            "cannot make the token",
            why="its time to live is not between 1 second and 3650 days",
            remedy="choose another, or none for a token that does not expire",
        )


def check_grace(grace: float) -> None:
    if not 0 <= grace <= LONGEST_GRACE:
        raise TokenInvalidError(
            "cannot rotate the token",
            why="the time its old secret is still accepted is not between 0 seconds and 30 days",
            remedy="choose as long as it takes to put the new one everywhere the old one is",
        )

"""The ring key: what a keyring's data keys are wrapped with, and its file is authenticated with."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

RING_KEY_BYTES = 32


class RingKey:
    """What is derived from one ring key.

    Each use has a key of its own (NIST SP 800-108 in spirit: HMAC with a label), so that the MAC in
    the file says nothing about the key that wraps.
    """

    __slots__ = ("_authenticate", "_wrap", "check", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._wrap = derive(key, b"novacron keyring wrap v1")
        self._authenticate = derive(key, b"novacron keyring authenticate v1")
        self.check = derive(key, b"novacron keyring check v1").hex()
        """In files of version 1, which key they are under."""

    @classmethod
    def new(cls) -> RingKey:
        return cls(secrets.token_bytes(RING_KEY_BYTES))

    def __repr__(self) -> str:
        return "RingKey(…)"

    def authenticate(self, data: bytes) -> str:
        return hmac.new(self._authenticate, data, hashlib.sha256).hexdigest()

    def authentic(self, data: bytes, mac: str) -> bool:
        return hmac.compare_digest(self.authenticate(data), mac)

    def wrap(self, key: bytes, context: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        return nonce + AESGCM(self._wrap).encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Raises ``ValueError`` when *wrapped* was not wrapped by this key for *context*."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._wrap).decrypt(wrapped[:12], wrapped[12:], context)
        except (InvalidTag, ValueError):
            raise ValueError("the wrapped key does not open") from None


def derive(key: bytes, label: bytes) -> bytes:
    return hmac.new(key, label, hashlib.sha256).digest()

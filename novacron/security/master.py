"""The master key: where it lies, and how the first boot makes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory, remove_durably, write_durably
from novacron.security.errors import storage_failure
from novacron.security.references import (
    MASTER_KEY_BYTES,
    decode_master_key,
    read_secret,
    register,
)


class MasterKey:
    """What is derived from one master key; the key itself is not kept.

    Each use has a key of its own (NIST SP 800-108 in spirit: HMAC with a label), so that the check
    value in the file says nothing about the key that wraps.
    """

    __slots__ = ("_authenticate", "_wrap", "check")

    def __init__(self, key: bytes) -> None:
        self._wrap = _derive(key, b"novacron keyring wrap v1")
        self._authenticate = _derive(key, b"novacron keyring authenticate v1")
        self.check = _derive(key, b"novacron keyring check v1").hex()

    def __repr__(self) -> str:
        return "MasterKey(…)"

    def authenticate(self, data: bytes) -> str:
        return hmac.new(self._authenticate, data, hashlib.sha256).hexdigest()

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


class MasterKeySource:
    """Where the configuration says the master key is. All methods block on the disk."""

    def __init__(
        self,
        directory: DataDirectory,
        reference: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = environ
        self.owned = reference == "file:"
        """Whether the key is this node's to make and to replace."""
        self.path: Path = directory.secrets / "master.key"
        self.reference = f"file:{self.path}" if self.owned else reference

    @property
    def next_path(self) -> Path:
        """The key that a master rotation is about to put in place."""
        return self.path.with_name("master.key.next")

    def read(self) -> MasterKey:
        """Raises ``SecretReferenceError``: missing, readable by others, no 32 bytes of base64."""
        text = read_secret(self.reference, key="security.master_key", environ=self._environ)
        return MasterKey(decode_master_key(text, self.reference))

    def read_next(self) -> MasterKey | None:
        """The key a rotation that was cut short left behind."""
        if not self.owned or not self.next_path.exists():
            return None
        text = read_secret(f"file:{self.next_path}", key="security.master_key")
        return MasterKey(decode_master_key(text, f"file:{self.next_path}"))

    def create(self) -> MasterKey:
        """Make the key file of the first boot."""
        return self._write(self.path)

    def create_next(self) -> MasterKey:
        return self._write(self.next_path)

    def adopt_next(self) -> None:
        """Put the next key in the place of this one; harmless when it is there already."""
        try:
            os.rename(self.next_path, self.path)
            fsync_directory(self.path.parent)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise storage_failure("replace", self.path, exc) from exc

    def drop_next(self) -> None:
        remove_durably(self.next_path)

    def _write(self, path: Path) -> MasterKey:
        key = secrets.token_bytes(MASTER_KEY_BYTES)
        text = base64.b64encode(key)
        register(text)
        try:
            write_durably(path, text + b"\n", mode=0o600)
        except OSError as exc:
            raise storage_failure("write", path, exc) from exc
        return MasterKey(key)


def _derive(key: bytes, label: bytes) -> bytes:
    return hmac.new(key, label, hashlib.sha256).digest()

"""The keyring's file: what is in it, and how it is read and written.

Version 2 has the data keys wrapped by a ring key, and slots that hold the ring key sealed by master
keys. In version 1 the only local master key there was took the place of the ring key.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.security import documents
from novacron.security.errors import KeyringError, storage_failure
from novacron.security.master import Slot
from novacron.security.ring_key import RingKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = 2
_MOST_SLOTS = 2


class DataKey:
    """One wrapped key, and its cipher once somebody needed it."""

    __slots__ = ("cipher", "created", "id", "reserved", "wrapped")

    def __init__(self, id: str, created: float, wrapped: bytes, reserved: int) -> None:
        self.id = id
        self.created = created
        self.wrapped = wrapped
        self.reserved = reserved
        self.cipher: AESGCM | None = None

    def __repr__(self) -> str:
        return f"DataKey({self.id})"

    def context(self) -> bytes:
        return b"novacron data key " + self.id.encode()

    def rewrapped(self, old: RingKey, new: RingKey) -> DataKey:
        """The same key under *new*. Raises ``ValueError`` when *old* does not open it."""
        context = self.context()
        wrapped = new.wrap(old.unwrap(self.wrapped, context), context)
        key = DataKey(self.id, self.created, wrapped, self.reserved)
        key.cipher = self.cipher
        return key

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "created": documents.to_text(self.created),
            "wrapped": base64.b64encode(self.wrapped).decode(),
            "reserved": self.reserved,
        }


class KeyringContent:
    """What a keyring's file says; nothing of it may be believed before :meth:`authentic`."""

    __slots__ = ("active", "check", "keys", "mac", "signed", "slots")

    def __init__(self, body: dict[str, Any]) -> None:
        version = body.get("version")
        if version not in (1, FORMAT):
            raise ValueError(f"its version is not {FORMAT}")
        self.mac = str(body.pop("mac", ""))
        self.signed = documents.canonical(body)
        self.active = str(body["active"])
        self.check = str(body["check"]) if version == 1 else ""
        """Of version 1 alone: which master key it is under."""
        self.slots: list[Slot] = [dict(slot) for slot in body["slots"]] if version != 1 else []
        if version != 1 and not 1 <= len(self.slots) <= _MOST_SLOTS:
            raise ValueError("it has no slot of a master key, or too many")
        self.keys: dict[str, DataKey] = {}
        for entry in body["keys"]:
            key = DataKey(
                str(entry["id"]),
                documents.from_text(entry["created"]),
                base64.b64decode(entry["wrapped"], validate=True),
                int(entry["reserved"]),
            )
            if len(bytes.fromhex(key.id)) != 8:
                raise ValueError("a key id has the wrong length")
            self.keys[key.id] = key
        if self.active not in self.keys:
            raise ValueError("the active key is missing")

    def authentic(self, ring: RingKey) -> bool:
        return ring.authentic(self.signed, self.mac)


def read(path: Path) -> KeyringContent:
    """The content of the file *path*.

    Raises:
      KeyringError: it is damaged; it was left as it is.
      StorageFailedError: the disk refuses.
    """
    try:
        return KeyringContent(documents.decode(path.read_bytes()))
    except OSError as exc:
        raise storage_failure("read", path, exc) from exc
    except (ValueError, TypeError, KeyError) as exc:
        why = str(exc) if isinstance(exc, ValueError) else "a field is missing or wrong"
        raise KeyringError(
            f"cannot read the keyring {path}",
            why=why,
            remedy="restore it from a backup; it was left as it is",
            key="security.master_key",
        ) from exc


def encoded(ring: RingKey, slots: list[Slot], active: str, keys: dict[str, DataKey]) -> bytes:
    """The bytes of a file with that content."""
    body: dict[str, Any] = {
        "version": FORMAT,
        "active": active,
        "slots": [dict(slot) for slot in slots],
        "keys": [key.document() for key in keys.values()],
    }
    body["mac"] = ring.authenticate(documents.canonical(body))
    return documents.encode(body)

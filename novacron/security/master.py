"""Master keys: what seals the ring key, in memory of this process or inside a hardware module.

What a master key makes is a *slot*: a JSON object that only this key gets the ring key out of. A
keyring has a slot for each master key that opens it; usually one, and two while the master key is
being replaced.
"""

from __future__ import annotations

import base64
import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from novacron.security.ring_key import RING_KEY_BYTES, RingKey, derive

if TYPE_CHECKING:
    from novacron.security.key_module import KeyModule

Slot = Mapping[str, Any]

_CONTEXT = "novacron ring key v2"
_NONCE = 16


class MasterKey(ABC):
    """One master key. Methods may block: call them in a worker thread."""

    kind: ClassVar[str]

    def __init__(self, reference: str) -> None:
        self.reference = reference

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reference})"

    @abstractmethod
    def seal(self, ring: RingKey) -> Slot:
        """A slot that holds *ring*.

        Raises:
          KeyModuleError, KeyModuleAwayError: it is in a module, which cannot be used.
        """

    @abstractmethod
    def unseal(self, slots: Sequence[Slot]) -> tuple[int, RingKey] | None:
        """The ring key, and in which of *slots* it was; None when none is this key's, or was
        changed since. Raises like :meth:`seal`."""

    def legacy(self) -> RingKey | None:
        """What files of version 1 are under, if this kind of key was there then."""
        return None


class LocalMasterKey(MasterKey):
    """A master key that was read into this process; the key itself is not kept.

    The ring key is as long as one block of HMAC-SHA-256, so it is sealed with that alone: masked by
    the HMAC of a random nonce, and authenticated by another over nonce and result (a stream cipher
    in counter mode with one block, encrypt-then-MAC). The AEAD would do the same and cost every
    boot its import (ADR 0030).
    """

    kind = "local"

    def __init__(self, key: bytes, reference: str) -> None:
        super().__init__(reference)
        self._legacy = RingKey(key)
        self._mask = derive(key, b"novacron master mask v2")
        self._authenticate = derive(key, b"novacron master authenticate v2")
        self._check = derive(key, b"novacron master check v2").hex()

    def seal(self, ring: RingKey) -> Slot:
        nonce = os.urandom(_NONCE)
        masked = self._masked(nonce, ring.key)
        return {
            "kind": self.kind,
            "reference": self.reference,
            "check": self._check,
            "sealed": base64.b64encode(nonce + masked + self._tag(nonce + masked)).decode(),
        }

    def unseal(self, slots: Sequence[Slot]) -> tuple[int, RingKey] | None:
        for index, slot in enumerate(slots):
            if slot.get("kind") != self.kind or slot.get("check") != self._check:
                continue
            sealed = _bytes(slot)
            nonce, masked = sealed[:_NONCE], sealed[_NONCE : _NONCE + RING_KEY_BYTES]
            if hmac.compare_digest(
                self._tag(nonce + masked), sealed[_NONCE + RING_KEY_BYTES :]
            ) and (len(masked) == RING_KEY_BYTES):
                return index, RingKey(self._masked(nonce, masked))
        return None

    def legacy(self) -> RingKey:
        return self._legacy

    def _masked(self, nonce: bytes, data: bytes) -> bytes:
        mask = derive(self._mask, nonce)
        return bytes(a ^ b for a, b in zip(mask, data, strict=True))

    def _tag(self, data: bytes) -> bytes:
        return derive(self._authenticate, data)


class ModuleMasterKey(MasterKey):
    """A master key that is in a hardware module and stays there; see the key module for how."""

    kind = "pkcs11"
    mechanism = "CKM_AES_GCM"

    def __init__(self, module: KeyModule) -> None:
        super().__init__(str(module.uri))
        self._module = module

    def seal(self, ring: RingKey) -> Slot:
        sealed = self._module.encrypt(ring.key, _CONTEXT)
        return {
            "kind": self.kind,
            "reference": self.reference,
            "mechanism": self.mechanism,
            "sealed": base64.b64encode(sealed).decode(),
        }

    def unseal(self, slots: Sequence[Slot]) -> tuple[int, RingKey] | None:
        mine = [
            index
            for index, slot in enumerate(slots)
            if slot.get("kind") == self.kind and slot.get("mechanism") == self.mechanism
        ]
        if not mine:
            return None
        opened = self._module.decrypt([_bytes(slots[index]) for index in mine], _CONTEXT)
        for index, key in zip(mine, opened, strict=True):
            if key is not None and len(key) == RING_KEY_BYTES:
                return index, RingKey(key)
        return None


def _bytes(slot: Slot) -> bytes:
    try:
        return base64.b64decode(slot["sealed"], validate=True)
    except (KeyError, TypeError, ValueError):
        return b""

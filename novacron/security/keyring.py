"""Data keys under a ring key: AES-256-GCM, rotated, with old keys still opening old data.

A ciphertext is ``version (1) | key id (8) | nonce (12) | ciphertext and tag``; everything before
the nonce, and the caller's context, are authenticated with it. Nonces are random, so one key may
seal at most 2**32 messages (NIST SP 800-38D, section 8.3): the count is kept in the file, reserved
in blocks, and a key that has reached it is replaced by itself.

The data keys are wrapped by a ring key, and that is sealed by the master key, or by two of them while
one replaces the other: the running node works with the ring key it has and asks no master key for
anything (ADR 0125). The file carries a MAC under the ring key. A boot checks that MAC and unwraps no
data key: the AEAD is imported by the first caller that seals or opens something.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from novacron.data_directory import DataDirectory
from novacron.security import documents
from novacron.security.errors import KeyringError
from novacron.security.keyring_file import DataKey
from novacron.security.module_options import ModuleOptions
from novacron.security.ring_key import RingKey
from novacron.security.stored_keyring import StoredKeyring, View

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_CIPHERTEXT = 1
_HEADER = 9
_NONCE = 12
_TAG = 16
_DAY = 86400.0

MESSAGE_LIMIT = 2**32
MESSAGE_BLOCK = 2**20
"""Messages reserved at a time: a process writes the file once in a million messages, and a
restart wastes at most one block of the 4096 a key has."""
LARGEST_PLAINTEXT = 2**30
"""Bytes. Well below the 2**36 - 32 of GCM and the 2**31 - 1 the library takes at once."""


class Keyring(StoredKeyring):
    """The node's data keys. Safe to use from several threads.

    :meth:`encrypt` and :meth:`decrypt` cost microseconds, except that the first call of a process
    imports the AEAD (about 10 ms) and writes the file: make that one in a worker thread.
    """

    def __init__(
        self,
        directory: DataDirectory,
        reference: str = "file:",
        rotation_days: int = 90,
        *,
        options: ModuleOptions | None = None,
        environ: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(directory, reference, options=options, environ=environ)
        self._rotation = rotation_days * _DAY
        self._now = now

    # --- Life -----------------------------------------------------------------------------------

    def open(self, *, create: bool = True) -> bool:
        """Read the keyring; with *create*, make what the first boot has to make. Blocks.

        Returns whether it was made. A crash between the master key and the keyring leaves a state
        from which this goes on, and so does a rotation of the master key that was cut short.

        Raises:
          SecretReferenceError, KeyModuleError: the master key cannot be used.
          KeyModuleAwayError: it is in a module that does not answer.
          KeyringError: the master key is lost or is another one, or the file is damaged. Nothing
            was written.
        """
        with self._mutex:
            if documents.stamp(self.path) is not None:
                self._load()
                if create and (not self._slots or self._source.next_path.exists()):
                    self.settle()
                return False
            if self._first_boot_done():
                raise KeyringError(
                    f"cannot find the keyring {self.path}",
                    why="this node has encrypted data, and the keys to it are gone",
                    remedy="restore the file from a backup; see the runbook lost-master-key",
                    key="security.master_key",
                )
            if not create:
                raise KeyringError(
                    f"cannot find the keyring {self.path}",
                    why="no node has booted on this data directory",
                    remedy="name the data directory of a node with --data-dir",
                )
            with self._exclusive():
                source = self._source
                master = source.create() if source.missing() else source.read()
                self._ring = RingKey.new()
                self._slots = [master.seal(self._ring)]
                self._keys = {}
                # The first boot seals at once: reserved with the key, it is one write less.
                self._keys[self._add_key()].reserved = MESSAGE_BLOCK
                self._write()
                self._budget = MESSAGE_BLOCK
            return True

    def _first_boot_done(self) -> bool:
        # The order of the first boot: master key, keyring, then anything that needs it.
        return any(
            path.exists()
            for path in (self._directory.pki / "ca.key", self._directory.secrets / "tokens.json")
        )

    # --- Use ------------------------------------------------------------------------------------

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """Seal *plaintext*; only :meth:`decrypt` with the same *context* opens it.

        Raises:
          KeyringError: the plaintext is too large, or the keyring is not open.
          StorageFailedError: a new block of messages could not be reserved.
        """
        if len(plaintext) > LARGEST_PLAINTEXT:
            raise KeyringError(
                "cannot encrypt the value",
                why=f"it is larger than {LARGEST_PLAINTEXT} bytes",
                remedy="encrypt it in parts",
            )
        with self._mutex:
            self._look()
            if self._budget == 0:
                self._reserve()
            self._budget -= 1
            key = self._keys[self._active]
            cipher = self._cipher(key)
        header = bytes((_CIPHERTEXT,)) + bytes.fromhex(key.id)
        nonce = os.urandom(_NONCE)
        return header + nonce + cipher.encrypt(nonce, plaintext, header + context)

    def decrypt(self, ciphertext: bytes, context: bytes) -> bytes:
        """Open what :meth:`encrypt` sealed.

        Raises:
          KeyringError: it was changed, was sealed for another context, by another keyring, or is
            no ciphertext of ours.
        """
        from cryptography.exceptions import InvalidTag

        if len(ciphertext) < _HEADER + _NONCE + _TAG or ciphertext[0] != _CIPHERTEXT:
            raise KeyringError(
                "cannot decrypt a value",
                why="it is no ciphertext of this version",
                remedy="restore the value, or run the version that wrote it",
            )
        header, nonce = ciphertext[:_HEADER], ciphertext[_HEADER : _HEADER + _NONCE]
        id = header[1:].hex()
        with self._mutex:
            if id not in self._keys or not self._keys:
                self._refresh()
            key = self._keys.get(id)
            if key is None:
                raise KeyringError(
                    "cannot decrypt a value",
                    why=f"the keyring has no key {id}",
                    remedy="restore the keyring that was in use when it was written",
                )
            cipher = self._cipher(key)
        try:
            return cipher.decrypt(nonce, ciphertext[_HEADER + _NONCE :], header + context)
        except InvalidTag:
            raise KeyringError(
                "cannot decrypt a value",
                why="it was changed, or was encrypted for another purpose",
                remedy="restore it from a backup",
            ) from None

    def _cipher(self, key: DataKey) -> AESGCM:
        if key.cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            try:
                key.cipher = AESGCM(self._opened().unwrap(key.wrapped, key.context()))
            except ValueError:
                raise KeyringError(
                    f"cannot use the data key {key.id}",
                    why="its wrapping is damaged",
                    remedy=f"restore {self.path} from a backup",
                ) from None
        return key.cipher

    # --- Rotation -------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether the active key is older than it may be, or has sealed all it may."""
        return self._due(self._view)

    def _due(self, view: View) -> bool:
        key = view.active
        if key is None:
            return False
        old = self._now() - key.created >= self._rotation
        return old or key.reserved + MESSAGE_BLOCK > MESSAGE_LIMIT

    def rotate(self) -> str:
        """Make a new data key and seal with it from now on; returns its id. Blocks."""
        with self._exclusive():
            self._begin()
            id = self._add_key()
            self._write()
            return id

    def rotate_if_due(self) -> str | None:
        with self._mutex:
            self._refresh()
            return self.rotate() if self.due() else None

    def status(self) -> dict[str, Any]:
        """What an operator may know: no key material. Waits for nobody, so the event loop may ask
        while a thread waits for a module."""
        view = self._view
        return {
            "path": str(self.path),
            "master_key": self._source.reference,
            "opened_by": list(view.opened_by) or [self._source.reference],
            "active": "" if view.active is None else view.active.id,
            "rotation_due": self._due(view),
            "keys": [
                {
                    "id": key.id,
                    "created": documents.to_text(key.created),
                    "messages_reserved": key.reserved,
                    "active": key is view.active,
                }
                for key in sorted(view.keys, key=lambda key: key.created)
            ],
        }

    # --- The keys themselves -----------------------------------------------------------------------

    def _add_key(self) -> str:
        id = secrets.token_hex(8)
        key = DataKey(id, self._now(), b"", 0)
        key.wrapped = self._opened().wrap(secrets.token_bytes(32), key.context())
        self._keys[id] = key
        self._active = id
        self._budget = 0
        return id

    def _reserve(self) -> None:
        with self._exclusive():
            self._begin()
            if self._keys[self._active].reserved + MESSAGE_BLOCK > MESSAGE_LIMIT:
                self._add_key()
            self._keys[self._active].reserved += MESSAGE_BLOCK
            self._write()
            self._budget = MESSAGE_BLOCK

"""Data keys under a master key: AES-256-GCM, rotated, with old keys still opening old data.

A ciphertext is ``version (1) | key id (8) | nonce (12) | ciphertext and tag``; everything before
the nonce, and the caller's context, are authenticated with it. Nonces are random, so one key may
seal at most 2**32 messages (NIST SP 800-38D, section 8.3): the count is kept in the file, reserved
in blocks, and a key that has reached it is replaced by itself.

The file carries a MAC under the master key. A boot checks that MAC and unwraps nothing: the AEAD
is imported by the first caller that seals or opens something.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.security import documents
from novacron.security.errors import KeyringError, storage_failure
from novacron.security.filelock import held
from novacron.security.master import MasterKey, MasterKeySource

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORMAT = 1
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

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "created": documents.to_text(self.created),
            "wrapped": base64.b64encode(self.wrapped).decode(),
            "reserved": self.reserved,
        }


class Keyring:
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
        environ: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = directory.secrets / "keyring.json"
        self._directory = directory
        self._source = MasterKeySource(directory, reference, environ)
        self._rotation = rotation_days * _DAY
        self._now = now
        self._mutex = threading.RLock()
        self._master: MasterKey | None = None
        self._keys: dict[str, DataKey] = {}
        self._active = ""
        self._budget = 0
        self._stamp: documents.Stamp | None = None

    def __repr__(self) -> str:
        return f"Keyring({self.path}, {len(self._keys)} keys)"

    # --- Life -----------------------------------------------------------------------------------

    def open(self, *, create: bool = True) -> bool:
        """Read the keyring; with *create*, make what the first boot has to make. Blocks.

        Returns whether it was made. A crash between the master key and the keyring leaves a state
        from which this goes on.

        Raises:
          SecretReferenceError: the master key cannot be used.
          KeyringError: the master key is lost or is another one, or the file is damaged. Nothing
            was written.
        """
        with self._mutex:
            if documents.stamp(self.path) is not None:
                self._load()
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
            with held(self._directory.secrets / "keyring.lock"):
                source = self._source
                made = source.owned and documents.stamp(source.path) is None
                self._master = source.create() if made else source.read()
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

    def close(self) -> None:
        """Forget the keys."""
        with self._mutex:
            self._master = None
            self._keys = {}
            self._active = ""
            self._budget = 0
            self._stamp = None

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
            self._refresh()
            if self._budget == 0:
                self._reserve()
            self._budget -= 1
            key = self._keys[self._active]
            cipher = self._cipher(key)
        header = bytes((_FORMAT,)) + bytes.fromhex(key.id)
        nonce = os.urandom(_NONCE)
        return header + nonce + cipher.encrypt(nonce, plaintext, header + context)

    def decrypt(self, ciphertext: bytes, context: bytes) -> bytes:
        """Open what :meth:`encrypt` sealed.

        Raises:
          KeyringError: it was changed, was sealed for another context, by another keyring, or is
            no ciphertext of ours.
        """
        from cryptography.exceptions import InvalidTag

        if len(ciphertext) < _HEADER + _NONCE + _TAG or ciphertext[0] != _FORMAT:
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
        with self._mutex:
            key = self._keys[self._active]
            old = self._now() - key.created >= self._rotation
            return old or key.reserved + MESSAGE_BLOCK > MESSAGE_LIMIT

    def rotate(self) -> str:
        """Make a new data key and seal with it from now on; returns its id. Blocks."""
        with self._mutex, held(self._directory.secrets / "keyring.lock"):
            self._refresh()
            id = self._add_key()
            self._write()
            return id

    def rotate_if_due(self) -> str | None:
        with self._mutex:
            self._refresh()
            return self.rotate() if self.due() else None

    def rotate_master(self, replacement: str | None = None) -> None:
        """Wrap every data key anew under another master key. Data stay as they are. Blocks.

        Args:
          replacement: Reference to the new master key. None makes one, which takes the place of
            the file in the data directory; only where that is the one in use.

        Raises:
          KeyringError: the key in use is not this node's to replace.
        """
        source = self._source
        if replacement is None and not source.owned:
            raise KeyringError(
                "cannot replace the master key",
                why=f"it comes from {source.reference}, which is not the node's to write",
                remedy="put the new key elsewhere and name it with --to REFERENCE",
                key="security.master_key",
            )
        with self._mutex, held(self._directory.secrets / "keyring.lock"):
            self._refresh()
            if replacement is None:
                new = source.create_next()
            else:
                new = MasterKeySource(self._directory, replacement).read()
            old = self._opened()
            try:
                for key in self._keys.values():
                    key.wrapped = new.wrap(old.unwrap(key.wrapped, key.context()), key.context())
                self._master = new
                self._write()
            except BaseException:
                # Half of the keys may be wrapped anew in memory; the file has the old state.
                self._stamp = None
                self._master = old
                raise
            if replacement is None:
                source.adopt_next()

    def status(self) -> dict[str, Any]:
        """What an operator may know: no key material."""
        with self._mutex:
            return {
                "path": str(self.path),
                "master_key": self._source.reference,
                "active": self._active,
                "rotation_due": self.due(),
                "keys": [
                    {
                        "id": key.id,
                        "created": documents.to_text(key.created),
                        "messages_reserved": key.reserved,
                        "active": key.id == self._active,
                    }
                    for key in sorted(self._keys.values(), key=lambda key: key.created)
                ],
            }

    # --- The file -------------------------------------------------------------------------------

    def _opened(self) -> MasterKey:
        if self._master is None:
            raise KeyringError("cannot use the keyring", why="it is not open")
        return self._master

    def _add_key(self) -> str:
        id = secrets.token_hex(8)
        key = DataKey(id, self._now(), b"", 0)
        key.wrapped = self._opened().wrap(secrets.token_bytes(32), key.context())
        self._keys[id] = key
        self._active = id
        self._budget = 0
        return id

    def _reserve(self) -> None:
        with held(self._directory.secrets / "keyring.lock"):
            self._refresh()
            if self._keys[self._active].reserved + MESSAGE_BLOCK > MESSAGE_LIMIT:
                self._add_key()
            self._keys[self._active].reserved += MESSAGE_BLOCK
            self._write()
            self._budget = MESSAGE_BLOCK

    def _write(self) -> None:
        master = self._opened()
        body: dict[str, Any] = {
            "version": _FORMAT,
            "active": self._active,
            "check": master.check,
            "keys": [key.document() for key in self._keys.values()],
        }
        body["mac"] = master.authenticate(documents.canonical(body))
        try:
            write_durably(self.path, documents.encode(body), mode=0o600)
        except OSError as exc:
            # Memory is ahead of the file now; the next use reads the file again.
            self._stamp = None
            raise storage_failure("write", self.path, exc) from exc
        self._stamp = documents.stamp(self.path)

    def _refresh(self) -> None:
        """Take over what the command line has changed since."""
        self._opened()
        if documents.stamp(self.path) != self._stamp:
            self._load()

    def _load(self) -> None:
        stamp = documents.stamp(self.path)
        try:
            body = documents.decode(self.path.read_bytes())
            if body.get("version") != _FORMAT:
                raise ValueError(f"its version is not {_FORMAT}")
            mac = str(body.pop("mac", ""))
            check = str(body["check"])
            active = str(body["active"])
            keys = {}
            for entry in body["keys"]:
                key = DataKey(
                    str(entry["id"]),
                    documents.from_text(entry["created"]),
                    base64.b64decode(entry["wrapped"], validate=True),
                    int(entry["reserved"]),
                )
                if len(bytes.fromhex(key.id)) != 8:
                    raise ValueError("a key id has the wrong length")
                keys[key.id] = key
            if active not in keys:
                raise ValueError("the active key is missing")
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        except (ValueError, TypeError, KeyError) as exc:
            why = str(exc) if isinstance(exc, ValueError) else "a field is missing or wrong"
            raise KeyringError(
                f"cannot read the keyring {self.path}",
                why=why,
                remedy="restore it from a backup; it was left as it is",
                key="security.master_key",
            ) from exc
        master = self._matching_master(check)
        if not hmac.compare_digest(master.authenticate(documents.canonical(body)), mac):
            raise KeyringError(
                f"cannot trust the keyring {self.path}",
                why="somebody without the master key has changed it",
                remedy="restore it from a backup, and find out who wrote to it",
                key="security.master_key",
            )
        for id, known in self._keys.items():
            if id in keys:
                keys[id].cipher = known.cipher
        if active != self._active:
            self._budget = 0
        self._master, self._keys, self._active, self._stamp = master, keys, active, stamp

    def _matching_master(self, check: str) -> MasterKey:
        """The master key the file was written under; finishes a rotation that was cut short."""
        if self._master is not None and hmac.compare_digest(self._master.check, check):
            return self._master
        source = self._source
        interrupted = source.read_next()
        if interrupted is not None and hmac.compare_digest(interrupted.check, check):
            source.adopt_next()
            return interrupted
        if source.owned and documents.stamp(source.path) is None:
            raise KeyringError(
                f"cannot find the master key {source.path}",
                why="the keyring is there, and nothing else opens it",
                remedy="restore the file from a backup; see the runbook lost-master-key",
                key="security.master_key",
            )
        master = source.read()
        if not hmac.compare_digest(master.check, check):
            raise KeyringError(
                f"cannot open the keyring {self.path}",
                why=f"{source.reference} is not the master key it was made with",
                remedy="put back the master key that was in use; see the runbook lost-master-key",
                key="security.master_key",
            )
        if interrupted is not None:
            source.drop_next()
        return master

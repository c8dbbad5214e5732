"""The keyring as a file that several processes change, and the master keys that open it.

A running node, ``novacron keys`` and a second node that is started by mistake may all be at it: who
changes it holds a lock and starts from what is in the file. The rotation of the master key is a
sequence of such changes, and after each of them the keyring opens: see ADR 0125.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.errors import NovaCronError
from novacron.record import Record
from novacron.security import documents, keyring_file
from novacron.security.errors import KeyringError, storage_failure
from novacron.security.filelock import held
from novacron.security.keyring_file import DataKey, KeyringContent
from novacron.security.master import MasterKey, Slot
from novacron.security.master_source import MasterKeySource
from novacron.security.module_options import ModuleOptions
from novacron.security.ring_key import RingKey

_LOG = logging.getLogger("novacron.security")


class View(Record):
    """What may be told of a keyring, as it was after its latest change."""

    keys: tuple[DataKey, ...] = ()
    active: DataKey | None = None
    opened_by: tuple[str, ...] = ()
    """References of the master keys that open it; empty for a file of version 1."""


class StoredKeyring:
    """The file, in memory and on disk."""

    def __init__(
        self,
        directory: DataDirectory,
        reference: str,
        *,
        options: ModuleOptions | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.path = directory.secrets / "keyring.json"
        self._directory = directory
        self._environ = environ
        self._options = options
        self._source = self._source_of(reference)
        self._mutex = threading.RLock()
        self._locked = False
        self._ring: RingKey | None = None
        self._slots: list[Slot] = []
        self._keys: dict[str, DataKey] = {}
        self._active = ""
        self._budget = 0
        """Messages that are reserved for the active key and not used."""
        self._stamp: documents.Stamp | None = None
        self._complained: documents.Stamp | None = None
        """Of the file that could not be used."""
        self._view = View()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}, {len(self._keys)} keys)"

    def close(self) -> None:
        """Forget the keys."""
        with self._mutex:
            self._ring = None
            self._slots = []
            self._keys = {}
            self._active = ""
            self._budget = 0
            self._stamp = None
            self._publish()

    # --- The master key ---------------------------------------------------------------------------

    def rotate_master(self, replacement: str | None = None) -> None:
        """Have another master key open the keyring. Data stay as they are. Blocks.

        Args:
          replacement: Reference to the new master key. From now on both open the keyring; the old
            one no longer does once the node works with the new one (:meth:`settle`). None makes
            a key that takes the place of the file in the data directory at once; only where that
            is the one in use.

        Raises:
          KeyringError: the key in use is not this node's to replace, or is the one it should be
            replaced with.
          SecretReferenceError, KeyModuleError, KeyModuleAwayError: one of the two cannot be used.
        """
        source = self._source
        if replacement is None and not source.owned:
            raise KeyringError(
                "cannot replace the master key",
                why=f"it comes from {source.reference}, which is not the node's to write",
                remedy="put the new key elsewhere and name it with --to REFERENCE",
                key="security.master_key",
            )
        with self._exclusive():
            self._begin()
            ring, current = self._opened(), source.read()
            found = current.unseal(self._slots)
            if found is None:
                raise self._wrong_master(source)
            if replacement is None:
                new = source.create_next()
            else:
                target = self._source_of(replacement)
                new = target.create() if target.missing() else target.read()
            slot = new.seal(ring)
            if current.unseal([slot]) is not None:
                raise KeyringError(
                    "cannot replace the master key",
                    why=f"{new.reference} is the one in use",
                    remedy="name another one with --to REFERENCE",
                    key="security.master_key",
                )
            opened = new.unseal([slot])
            if opened is None or opened[1].key != ring.key:
                # Found out now and not at the next boot.
                raise KeyringError(
                    "cannot replace the master key",
                    why=f"{new.reference} does not open what it has sealed",
                    remedy="name a key that may both encrypt and decrypt; nothing was changed",
                    key="security.master_key",
                )
            # A rotation that nobody has taken over yet is replaced by this one.
            self._save(ring, [self._slots[found[0]], slot])
            if replacement is None:
                source.adopt_next()
                self._renew_ring(new)

    def settle(self) -> bool:
        """Finish a rotation of the master key: the one in use becomes the only one that opens the
        keyring, if it is the new one. Blocks. Returns whether there was something to finish.

        The ring key is made anew with it: whoever has the old master key and an old copy of the file
        has the old ring key as well.
        """
        with self._exclusive():
            changed = self._begin()
            if len(self._slots) == 1:
                return changed
            master = self._source.read()
            found = master.unseal(self._slots)
            if found is None:
                raise self._wrong_master(self._source)
            if found[0] == 0:
                return changed
            self._renew_ring(master)
            return True

    def _begin(self) -> bool:
        """Bring memory up to the file, and the file to where a change may start from: without what
        a rotation in place has left when it was cut short, and in the present version. Under the
        lock. Returns whether the file was changed."""
        self._refresh()
        source = self._source
        following = source.read_next()
        if following is not None:
            if self._made_under(following):
                source.adopt_next()
            else:
                source.drop_next()
        if self._slots:
            return False
        self._renew_ring(source.read())
        return True

    def unsettled(self) -> bool:
        """Whether two master keys open the keyring."""
        return len(self._view.opened_by) > 1

    def take_over(self, reference: str, options: ModuleOptions | None = None) -> None:
        """Go over to the master key *reference* means, which :meth:`rotate_master` has prepared.
        Blocks. What is sealed and opened meanwhile is not disturbed.

        Raises:
          KeyringError: the keyring was not prepared for that key. The other one stays in use.
          SecretReferenceError, KeyModuleError, KeyModuleAwayError: it cannot be used.
        """
        with self._exclusive():
            self._refresh()
            before = self._options, self._source
            self._options = options
            try:
                source = self._source_of(reference)
                if source.read().unseal(self._slots) is None:
                    raise KeyringError(
                        "cannot go over to another master key",
                        why=f"{source.reference} is none that opens the keyring",
                        remedy="run `novacron keys rotate --master --to REFERENCE` first",
                        key="security.master_key",
                    )
            except BaseException:
                self._options, self._source = before
                raise
            self._source = source
        self.settle()

    def _renew_ring(self, master: MasterKey) -> None:
        """A new ring key, sealed by *master* alone, in the place of the present one."""
        old, new = self._opened(), RingKey.new()
        try:
            keys = {id: key.rewrapped(old, new) for id, key in self._keys.items()}
        except ValueError:
            raise KeyringError(
                "cannot wrap the data keys anew",
                why="one of them is damaged",
                remedy=f"restore {self.path} from a backup",
                key="security.master_key",
            ) from None
        slot = master.seal(new)
        self._save(new, [slot], keys)

    def _made_under(self, master: MasterKey) -> bool:
        if self._slots:
            return master.unseal(self._slots) is not None
        legacy = master.legacy()
        return legacy is not None and legacy.key == self._opened().key

    # --- The file ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock between processes; within this one it may be held already."""
        with self._mutex:
            if self._locked:
                yield
                return
            with held(self._directory.secrets / "keyring.lock"):
                self._locked = True
                try:
                    yield
                finally:
                    self._locked = False

    def _source_of(self, reference: str) -> MasterKeySource:
        return MasterKeySource(self._directory, reference, self._environ, self._options)

    def _opened(self) -> RingKey:
        if self._ring is None:
            raise KeyringError(
                "cannot use the keyring", why="it is not open", remedy="start the node again"
            )
        return self._ring

    def _save(
        self, ring: RingKey, slots: list[Slot], keys: dict[str, DataKey] | None = None
    ) -> None:
        before = self._ring, self._slots, self._keys
        self._ring, self._slots, self._keys = ring, slots, keys or self._keys
        try:
            self._write()
        except BaseException:
            # What is in the file now is found out by the next use.
            self._ring, self._slots, self._keys = before
            self._stamp = None
            raise

    def _write(self) -> None:
        try:
            data = keyring_file.encoded(self._opened(), self._slots, self._active, self._keys)
            write_durably(self.path, data, mode=0o600)
        except OSError as exc:
            # Memory is ahead of the file now; the next use reads the file again.
            self._stamp = None
            raise storage_failure("write", self.path, exc) from exc
        self._stamp = documents.stamp(self.path)
        self._publish()

    def _refresh(self) -> None:
        """Take over what the command line has changed since."""
        self._opened()
        if documents.stamp(self.path) != self._stamp:
            self._load()

    def _look(self) -> None:
        """The same for who only uses the keys: if what has changed cannot be used, the keys of
        before stay in use, and data sealed with them open later as well. Changing the file is what
        :meth:`_refresh` has to allow first."""
        self._opened()
        stamp = documents.stamp(self.path)
        if stamp in (self._stamp, self._complained):
            return
        try:
            self._load()
        except NovaCronError as exc:
            if not self._keys:
                raise
            self._complained = stamp
            _LOG.error(
                "The keyring in %s changed and cannot be used; the keys read before stay in use.",
                self.path,
                extra={"why": str(exc)},
            )

    def _load(self) -> None:
        stamp = documents.stamp(self.path)
        content = keyring_file.read(self.path)
        ring = self._ring
        if ring is None or not content.authentic(ring):
            ring = self._unsealed(content)
            if not content.authentic(ring):
                raise KeyringError(
                    f"cannot trust the keyring {self.path}",
                    why="somebody without the master key has changed it",
                    remedy="restore it from a backup, and find out who wrote to it",
                    key="security.master_key",
                )
        for id, known in self._keys.items():
            if id in content.keys:
                content.keys[id].cipher = known.cipher
        if content.active != self._active:
            self._budget = 0
        self._ring, self._slots, self._stamp = ring, content.slots, stamp
        self._complained = None
        self._keys, self._active = content.keys, content.active
        self._publish()

    def _unsealed(self, content: KeyringContent) -> RingKey:
        """The ring key of *content*, by the master key in use or the one that is to follow it."""
        source = self._source
        following = source.read_next()
        if following is not None and (ring := _by(following, content)) is not None:
            return ring
        if source.missing():
            raise KeyringError(
                f"cannot find the master key {source.path}",
                why="the keyring is there, and nothing else opens it",
                remedy="restore the file from a backup; see the runbook lost-master-key",
                key="security.master_key",
            )
        if (ring := _by(source.read(), content)) is None:
            raise self._wrong_master(source)
        return ring

    def _wrong_master(self, source: MasterKeySource) -> KeyringError:
        return KeyringError(
            f"cannot open the keyring {self.path}",
            why=f"{source.reference} is not the master key it was made with",
            remedy="put back the master key that was in use (a command beside a node wants its "
            "--config); see the runbook lost-master-key",
            key="security.master_key",
        )

    def _publish(self) -> None:
        self._view = View(
            tuple(self._keys.values()),
            self._keys.get(self._active),
            tuple(str(slot.get("reference")) for slot in self._slots),
        )


def _by(master: MasterKey, content: KeyringContent) -> RingKey | None:
    if content.slots:
        found = master.unseal(content.slots)
        return None if found is None else found[1]
    legacy = master.legacy()
    return legacy if legacy is not None and legacy.check == content.check else None

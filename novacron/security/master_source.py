"""Where the configuration says the master key is, and how the first boot makes it."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory, remove_durably, write_durably
from novacron.security.errors import storage_failure
from novacron.security.master import LocalMasterKey, MasterKey
from novacron.security.module_options import ModuleOptions
from novacron.security.providers import provider_for
from novacron.security.references import MASTER_KEY_BYTES, register


class MasterKeySource:
    """The master key of ``security.master_key``. All methods block."""

    def __init__(
        self,
        directory: DataDirectory,
        reference: str,
        environ: Mapping[str, str] | None = None,
        options: ModuleOptions | None = None,
    ) -> None:
        self._environ = environ
        self._options = options
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
        return self._open(self.reference)

    def read_next(self) -> MasterKey | None:
        """The key a rotation that is under way, or was cut short, has left."""
        if not self.owned or not self.next_path.exists():
            return None
        return self._open(f"file:{self.next_path}")

    def missing(self) -> bool:
        """Whether the key is this node's to make, and was not made yet or is lost."""
        return self.owned and not self.path.exists()

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

    def _open(self, reference: str) -> MasterKey:
        return provider_for(reference, self._options, self._environ).open_master_key(reference)

    def _write(self, path: Path) -> MasterKey:
        key = secrets.token_bytes(MASTER_KEY_BYTES)
        text = base64.b64encode(key)
        register(text)
        try:
            write_durably(path, text + b"\n", mode=0o600)
        except OSError as exc:
            raise storage_failure("write", path, exc) from exc
        # By the name it will have: that of the next key is gone when it is looked for.
        return LocalMasterKey(key, f"file:{self.path}")

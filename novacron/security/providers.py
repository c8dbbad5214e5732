"""Where secrets come from: one provider for each scheme of a reference.

``file``, ``env`` and ``credential`` hand out what they keep; ``pkcs11`` hands out nothing and works
with the key where it is. What all four can do is open a master key.
"""

from __future__ import annotations

import base64
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from novacron.durable import fsync_directory
from novacron.security.errors import SecretReferenceError, storage_failure
from novacron.security.master import LocalMasterKey, MasterKey, ModuleMasterKey
from novacron.security.module_options import ModuleOptions
from novacron.security.references import (
    MASTER_KEY_BYTES,
    decode_master_key,
    read_secret,
    register,
)

if TYPE_CHECKING:
    from novacron.security.key_module import KeyModule

_KEY = "security.master_key"


class SecretProvider(ABC):
    """One way to keep secrets. Methods may block: call them in a worker thread."""

    scheme: ClassVar[str]

    def __init__(self, options: ModuleOptions, environ: Mapping[str, str] | None) -> None:
        self._options = options
        self._environ = environ

    def read(self, reference: str, *, key: str) -> bytes:
        """The secret *reference* leads to, as it is now: nothing is kept.

        Raises:
          SecretReferenceError: there is none, others could have read it, or this provider hands
            none out.
        """
        return read_secret(reference, key=key, environ=self._environ)

    def open_master_key(self, reference: str) -> MasterKey:
        """The master key *reference* means.

        Raises:
          SecretReferenceError: it leads to none.
          KeyModuleError, KeyModuleAwayError: from a method of the key, as soon as it is used.
        """
        text = self.read(reference, key=_KEY)
        return LocalMasterKey(decode_master_key(text, reference), reference)

    @abstractmethod
    def make_master_key(self, reference: str) -> dict[str, Any]:
        """Make a new master key there; what is there already is never replaced.

        Returns what may be told about it.

        Raises:
          SecretReferenceError: there is one, or it is not the node's to write.
          KeyModuleError, KeyModuleAwayError: the module refuses.
          StorageFailedError: the disk refuses.
        """

    def describe_master_key(self, reference: str) -> dict[str, Any]:
        """What is known about the key, for an operator. Raises like :meth:`open_master_key`."""
        return {"reference": self.open_master_key(reference).reference}


class FileProvider(SecretProvider):
    """``file:PATH``, which nobody but its owner may be able to read."""

    scheme = "file"

    def make_master_key(self, reference: str) -> dict[str, Any]:
        path = Path(reference.partition(":")[2]).expanduser()
        text = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES))
        register(text)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise SecretReferenceError(
                f"refusing to make the master key {path}",
                why="there is such a file, and what it has sealed would be lost with it",
                remedy="use it as it is, or choose another path",
                key=_KEY,
            ) from None
        except OSError as exc:
            raise storage_failure("create", path, exc) from exc
        try:
            try:
                os.write(descriptor, text + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fsync_directory(path.parent)
        except OSError as exc:
            path.unlink(missing_ok=True)
            raise storage_failure("write", path, exc) from exc
        return {"reference": reference}


class EnvironmentProvider(SecretProvider):
    """``env:NAME``."""

    scheme = "env"

    def make_master_key(self, reference: str) -> dict[str, Any]:
        raise SecretReferenceError(
            f"cannot make the master key {reference}",
            why="a process cannot write to the environment of others",
            remedy="put what `head -c 32 /dev/urandom | base64` prints into the node's environment",
            key=_KEY,
        )


class CredentialProvider(SecretProvider):
    """``credential:NAME``, from systemd."""

    scheme = "credential"

    def make_master_key(self, reference: str) -> dict[str, Any]:
        name = reference.partition(":")[2]
        raise SecretReferenceError(
            f"cannot make the master key {reference}",
            why="credentials are systemd's to keep",
            remedy="run `head -c 32 /dev/urandom | base64 | systemd-creds encrypt "
            f"--name={name} - /etc/novacron/{name}.cred` as root and add "
            f"LoadCredentialEncrypted={name}:/etc/novacron/{name}.cred to the unit",
            key=_KEY,
        )


class ModuleProvider(SecretProvider):
    """``pkcs11:…``, a key that never leaves its module."""

    scheme = "pkcs11"

    def read(self, reference: str, *, key: str) -> bytes:
        raise SecretReferenceError(
            "cannot read a secret from a hardware module",
            why="a pkcs11: reference means a key that stays there, and only security.master_key "
            "can do with that",
            remedy="write file:PATH, env:NAME or credential:NAME",
            key=key,
        )

    def open_master_key(self, reference: str) -> MasterKey:
        return ModuleMasterKey(self._module(reference))

    def make_master_key(self, reference: str) -> dict[str, Any]:
        module = self._module(reference)
        if module.uri.object is None:
            raise SecretReferenceError(
                "cannot make a master key in a hardware module",
                why="the reference gives it no label",
                remedy="add object=LABEL",
                key=_KEY,
            )
        return {"reference": reference, **module.generate()}

    def describe_master_key(self, reference: str) -> dict[str, Any]:
        return {"reference": reference, **self._module(reference).describe()}

    def _module(self, reference: str) -> KeyModule:
        from novacron.security.key_module import KeyModule
        from novacron.security.module_uri import parse

        return KeyModule(parse(reference, key=_KEY), self._options, self._environ)


def check_reference(reference: str) -> None:
    """Return if *reference*, to a master key, is written as one has to be: it holds no secret then,
    and may be put on record.

    Raises:
      SecretReferenceError: it is not; repeats nothing of it.
    """
    provider = provider_for(reference)
    if isinstance(provider, ModuleProvider):
        from novacron.security.module_uri import parse

        parse(reference, key=_KEY)


PROVIDERS: Mapping[str, type[SecretProvider]] = {
    provider.scheme: provider
    for provider in (FileProvider, EnvironmentProvider, CredentialProvider, ModuleProvider)
}


def provider_for(
    reference: str,
    options: ModuleOptions | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    key: str = _KEY,
) -> SecretProvider:
    """The provider that *reference* belongs to.

    Raises:
      SecretReferenceError: it belongs to none.
    """
    provider = PROVIDERS.get(reference.partition(":")[0])
    if provider is None:
        # The text could be a secret that somebody pasted in the wrong place: not repeated.
        raise SecretReferenceError(
            "cannot read a secret",
            why="its reference starts with none of file:, env:, credential:, pkcs11:",
            remedy="write file:PATH, env:NAME, credential:NAME or pkcs11:token=…;object=…",
            key=key,
        )
    return provider(options or ModuleOptions(), environ)

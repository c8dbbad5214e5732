"""Secret references: ``file:PATH``, ``env:NAME``, ``credential:NAME``.

A configuration names where a secret lies and never holds it. Sources: systemd.exec(5) for
``$CREDENTIALS_DIRECTORY``.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from novacron.security.errors import SecretReferenceError

MASTER_KEY_BYTES = 32
_LARGEST_SECRET = 64 * 1024
"""Bytes. A private key with its chain fits ten times; /dev/zero does not."""


_variables: set[str] = set()
"""Names of environment variables that a secret was read from."""


def environment_of_children(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What another program is started with: *environ*, by default this process's, without the
    variables that secrets were read from. They are nobody else's, and would be in that program's
    crash reports as well."""
    whole = os.environ if environ is None else environ
    return {name: value for name, value in whole.items() if name not in _variables}


def register(value: str | bytes) -> None:
    """Have every log record mask *value*."""
    from novacron.log.redaction import register_secret

    register_secret(value)


MOST_TOKENS = 100
"""Tokens whose every form is masked, the latest ones: each has four, that every line of the log is looked
through for. As they are written they are masked by how they begin, all of them and for ever."""

_tokens: OrderedDict[str, None] = OrderedDict()
_tokens_lock = threading.Lock()


def register_token(secret: str) -> None:
    """Have every log record mask the token *secret*, of any kind; of those that were registered, and may
    have been rotated or revoked since, the oldest is left to what masks all of them."""
    from novacron.log.redaction import forget_secret, register_secret

    with _tokens_lock:
        if secret in _tokens:
            _tokens.move_to_end(secret)
            return
        _tokens[secret] = None
        register_secret(secret)
        if len(_tokens) > MOST_TOKENS:
            forget_secret(_tokens.popitem(last=False)[0])


class SecretSource:
    """A secret that may be replaced while the node runs: whoever connects with it reads it anew.

    Nothing is kept here. What was read before is masked in the log as well, since a server may still
    take it.
    """

    __slots__ = ("_environ", "_key", "reference")

    def __init__(
        self, reference: str, *, key: str, environ: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
          key: The configuration key that holds the reference, for messages.
        """
        self.reference = reference
        self._key = key
        self._environ = environ

    def __repr__(self) -> str:
        return f"SecretSource({self._key})"

    def read(self) -> bytes:
        """The secret as it is now, without the white space around it. Blocks on the disk: call it
        in a worker thread.

        Raises:
          SecretReferenceError: there is none, or others could have read it.
        """
        return read_secret(self.reference, key=self._key, environ=self._environ).strip()


def read_secret(
    reference: str,
    *,
    key: str,
    environ: Mapping[str, str] | None = None,
) -> bytes:
    """What *reference* leads to, registered as a secret. Blocks on the disk.

    Args:
      key: The configuration key that holds the reference, for messages.

    Raises:
      SecretReferenceError: there is no such thing, or others could have read it.
    """
    environ = os.environ if environ is None else environ
    scheme, _, name = reference.partition(":")
    if scheme == "env":
        value = environ.get(name)
        if value is None:
            raise SecretReferenceError(
                f"cannot read the secret {reference}",
                why=f"the environment variable {name} is not set",
                remedy="set it for the node's process, or refer to a file or a systemd credential",
                key=key,
            )
        _variables.add(name)
        secret = value.encode("utf-8", "surrogateescape")
    elif scheme in ("file", "credential"):
        path = secret_path(reference, key=key, environ=environ)
        if scheme == "credential" and not path.exists():
            raise SecretReferenceError(
                f"cannot read the secret {reference}",
                why=f"systemd passed no credential of this name (there is no {path})",
                remedy=f"add LoadCredential={name}:PATH to the unit, or correct the name",
                key=key,
            )
        secret = read_secret_file(path, key=key, private=scheme == "file")
    else:
        # The text could be a secret that somebody pasted in the wrong place: not repeated.
        raise SecretReferenceError(
            "cannot read a secret",
            why="its reference starts with none of file:, env:, credential:",
            remedy="write file:PATH, env:NAME or credential:NAME",
            key=key,
        )
    if not secret.strip():
        raise SecretReferenceError(
            f"cannot use the secret {reference}",
            why="it is empty",
            remedy="put the secret there",
            key=key,
        )
    register(secret.strip())
    return secret


def secret_path(reference: str, *, key: str, environ: Mapping[str, str] | None = None) -> Path:
    """Where a ``file:`` or ``credential:`` reference leads.

    Raises:
      SecretReferenceError: no credentials were passed, or the name is no file name.
    """
    environ = os.environ if environ is None else environ
    scheme, _, name = reference.partition(":")
    if scheme == "file":
        return Path(name).expanduser()
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise SecretReferenceError(
            f"cannot read the secret {reference}",
            why="systemd passed no credentials (CREDENTIALS_DIRECTORY is not set)",
            remedy=f"add LoadCredential={name}:PATH to the unit, or refer to a file",
            key=key,
        )
    if not name or "/" in name or name in (".", ".."):
        raise SecretReferenceError(
            f"cannot read the secret {reference}",
            why="a credential's name is a file name, without a slash",
            remedy="write credential:NAME as in LoadCredential=NAME:PATH",
            key=key,
        )
    return Path(directory) / name


def read_secret_file(path: Path, *, key: str, private: bool = True) -> bytes:
    """The content of *path*, which with *private* nobody but its owner may be able to read.

    Not *private* is for systemd's credentials: the directory protects them, and those passed to a
    service with a user of its own carry an ACL that shows as mode 0440.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        raise SecretReferenceError(
            f"cannot read the secret file {path}",
            why="there is no such file",
            remedy="restore it, or correct the reference",
            key=key,
        ) from exc
    except OSError as exc:
        raise SecretReferenceError(
            f"cannot read the secret file {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="make it readable for the user the node runs as, and for nobody else",
            key=key,
        ) from exc
    try:
        # Looked at through the descriptor: the file that is checked is the file that is read.
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SecretReferenceError(
                f"cannot read the secret file {path}",
                why="it is not a regular file",
                remedy="refer to a file",
                key=key,
            )
        if private and found.st_mode & 0o077:
            raise SecretReferenceError(
                f"refusing the secret file {path}",
                why=f"its mode {stat.S_IMODE(found.st_mode):04o} lets other users at it",
                remedy=f"run `chmod 600 {path}`, and replace the secret if others may have read it",
                key=key,
            )
        if private and found.st_uid not in (os.geteuid(), 0):
            raise SecretReferenceError(
                f"refusing the secret file {path}",
                why=f"it belongs to user {found.st_uid}, who can change it",
                remedy=f"run `chown {os.geteuid()} {path}`",
                key=key,
            )
        if found.st_size > _LARGEST_SECRET:
            raise SecretReferenceError(
                f"cannot use the secret file {path}",
                why=f"it is larger than {_LARGEST_SECRET} bytes",
                remedy="refer to the file that holds the secret",
                key=key,
            )
        return os.read(descriptor, _LARGEST_SECRET)
    except OSError as exc:
        raise SecretReferenceError(
            f"cannot read the secret file {path}",
            why=exc.strerror or type(exc).__name__,
            remedy="look at the kernel log for disk errors",
            key=key,
        ) from exc
    finally:
        os.close(descriptor)


def decode_master_key(text: bytes, where: str) -> bytes:
    """The 32 bytes that *text* is the base64 of.

    Raises:
      SecretReferenceError: it is not base64, or not 32 bytes.
    """
    # In this order: a new key on a node that has run before opens nothing.
    remedy = (
        "put back the key that was there; only for a node that has never booted, make one with "
        "`head -c 32 /dev/urandom | base64`"
    )
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise SecretReferenceError(
            f"cannot use the master key from {where}",
            why="it is not base64",
            remedy=remedy,
            key="security.master_key",
        ) from None
    if len(key) != MASTER_KEY_BYTES:
        raise SecretReferenceError(
            f"cannot use the master key from {where}",
            why=f"it has {len(key)} bytes instead of {MASTER_KEY_BYTES}",
            remedy=remedy,
            key="security.master_key",
        )
    return key

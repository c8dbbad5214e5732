"""What can go wrong with keys, certificates, tokens and the audit log."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar

from novacron.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    LimitError,
    NotFoundError,
    SecurityError,
    TransientError,
    UnavailableError,
)


class SecretReferenceError(SecurityError, InvalidError):
    """A secret reference leads nowhere, or to something that must not be used."""

    code: ClassVar[str] = "security.secret"


class KeyringError(SecurityError, InvalidError):
    """The keyring cannot be opened, or a ciphertext does not belong to it."""

    code: ClassVar[str] = "security.keyring"


class KeyModuleError(SecurityError, InvalidError):
    """A hardware module, its PIN or the key in it cannot be used as configured."""

    code: ClassVar[str] = "security.module"


class KeyModuleAwayError(SecurityError, TransientError):
    """A hardware module does not answer, or not sensibly."""

    code: ClassVar[str] = "security.module_away"


class CertificateError(SecurityError, InvalidError):
    """A certificate of this node cannot be used."""

    code: ClassVar[str] = "security.certificate"


class ClockSetBackError(SecurityError, InvalidError):
    """The clock is so far behind that certificates are not valid yet."""

    code: ClassVar[str] = "security.clock"


class PeerRejectedError(SecurityError, DeniedError):
    """A peer's certificate does not make it a node of this cluster."""

    code: ClassVar[str] = "security.peer"


class TokenInvalidError(SecurityError, InvalidError):
    """A token cannot be made as asked."""

    code: ClassVar[str] = "security.token"


class TokenNotFoundError(SecurityError, NotFoundError):
    """No token has this id."""

    code: ClassVar[str] = "security.token_not_found"


class TokenLimitError(SecurityError, LimitError):
    """There are as many tokens as there may be."""

    code: ClassVar[str] = "security.token_limit"


class AuditUnavailableError(SecurityError, UnavailableError):
    """The audit log cannot be written, so the change it should record must not be made."""

    code: ClassVar[str] = "security.audit"


class LockedError(SecurityError, ConflictError):
    """Another process holds a lock for longer than is sane."""

    code: ClassVar[str] = "security.locked"


class StorageFailedError(SecurityError, UnavailableError):
    """The disk refused."""

    code: ClassVar[str] = "security.storage"


class JoinTokenError(SecurityError, DeniedError):
    """A join token does not let its holder in, or not any more."""

    code: ClassVar[str] = "security.join_token"


class RequestRefusedError(SecurityError, InvalidError):
    """A certificate request asks for what is not given."""

    code: ClassVar[str] = "security.certificate_request"


class JoinConflictError(SecurityError, ConflictError):
    """A join meets what is there: another node of that id, or a life this node has had."""

    code: ClassVar[str] = "security.join"


class NotAuthorityError(SecurityError, ConflictError):
    """Only the node that holds the authority's key can do this, and this node does not."""

    code: ClassVar[str] = "security.not_authority"


class RevocationListError(SecurityError, InvalidError):
    """A revocation list that is not to be believed."""

    code: ClassVar[str] = "security.revocation_list"


class RootsError(SecurityError, InvalidError):
    """A list of the cluster's authorities that is not to be believed."""

    code: ClassVar[str] = "security.roots"


class RotationError(SecurityError, ConflictError):
    """The authority's key cannot be replaced in this way now."""

    code: ClassVar[str] = "security.rotation"


class ReplacedAuthorityError(SecurityError, DeniedError):
    """The cluster has gone over to another authority while this node was away."""

    code: ClassVar[str] = "security.authority_replaced"


_STORAGE_REMEDIES = {
    errno.ENOSPC: ("the disk is full", "free space on that file system"),
    errno.EDQUOT: ("the disk quota is used up", "free space or raise the quota"),
    errno.EROFS: (
        "the file system is mounted read-only",
        "look for disk errors in the kernel log and mount it writable",
    ),
    errno.EACCES: (
        "permission denied",
        "give the data directory to the user the node runs as (chown -R)",
    ),
    errno.EPERM: (
        "permission denied",
        "give the data directory to the user the node runs as (chown -R)",
    ),
    errno.EISDIR: (
        "it is a directory, and should be a file of the node's",
        "move it away, and restore the file from a backup",
    ),
    errno.EIO: ("the disk reports an error", "look at the kernel log and replace the disk"),
}


def storage_failure(what: str, path: Path, error: OSError) -> StorageFailedError:
    """Map *error*, met while doing *what* to *path*, to what an operator can act on."""
    why, remedy = _STORAGE_REMEDIES.get(
        error.errno or 0, (error.strerror or type(error).__name__, "look at the path and its owner")
    )
    return StorageFailedError(
        f"cannot {what} {path}", why=why, remedy=remedy, key="system.data_dir"
    )

"""Whose a file is: a mark on the file itself, in an extended attribute, where it is not the default
tenant's.

Indexes keep tenants apart by their names. The mark keeps them apart also where one overwrites what
another has received, which is looked at without an index, and where a file came in the place of one
that was indexed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import Final

_MARK: Final = "user.novacron.tenant"
_NO_MARKS: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})
"""What file systems without extended attributes answer."""


def mark(descriptor: int, tenant: str) -> None:
    """The file is *tenant*'s from now on. Where the file system takes no marks it stays without."""
    with contextlib.suppress(OSError):
        os.setxattr(descriptor, _MARK, mark_of(tenant))


def mark_of(tenant: str) -> bytes:
    """What stands on a file of *tenant*: whoever reads it learns no name."""
    return hashlib.sha256(b"novacron tenant mark" + tenant.encode()).hexdigest()[:32].encode()


def is_of(descriptor: int, tenant: str, *, default: str, indexed: bool) -> bool:
    """Whether *tenant* may learn what is in a file.

    Args:
      default: Whose files without a mark are.
      indexed: It was indexed for *tenant*, which is what is left to go by where the file system
        takes no marks.
    """
    try:
        return os.getxattr(descriptor, _MARK) == mark_of(tenant)
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return tenant == default
        return exc.errno in _NO_MARKS and indexed

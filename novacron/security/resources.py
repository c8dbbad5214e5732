"""What a caller's role can be narrowed to: patterns ``kind:name`` that name tenants and directories. Pure.

A pattern names one resource, everything below a directory, or with ``*`` at its end whatever begins
so; ``*`` alone is everything.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

from novacron.security.errors import TokenInvalidError

EVERYTHING: tuple[str, ...] = ("*",)
"""Of a caller that is not narrowed."""
MOST_PATTERNS = 32
"""Of one token. Each is compared with each resource of a call; more is a sign that a group is missing."""
LONGEST_PATTERN = 512

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}|[A-Za-z0-9._-]{0,63}\*")

KINDS = ("tenant", "directory")
"""What can be named, and is asked about by :func:`novacron.security.policy.decide`."""


def tenant(name: str) -> str:
    """The resource that the tenant *name* is."""
    return f"tenant:{name}"


def directory(path: str) -> str:
    """The resource that *path*, absolute, is; ``..`` and doubled slashes are resolved by its text."""
    return f"directory:{posixpath.normpath('/' + path.lstrip('/'))}"


def is_narrowed(patterns: Sequence[str], kind: str = "") -> bool:
    """Whether *patterns* keep anything out; with *kind*, whether they speak of that kind."""
    if "*" in patterns:
        return False
    return not kind or any(pattern.startswith(f"{kind}:") for pattern in patterns)


def matches(pattern: str, resource: str) -> bool:
    """Whether *resource* is what *pattern* names."""
    if pattern in ("*", resource):
        return True
    if pattern.endswith("*"):
        # `tenant:` at least: a star never reaches over the kind.
        prefix = pattern[:-1]
        return ":" in prefix and resource.startswith(prefix)
    if pattern.startswith("directory:"):
        return resource.startswith(pattern.rstrip("/") + "/")
    return False


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """*patterns* as they are kept: sorted, each once, directories by their plain path.

    Raises:
      TokenInvalidError: one names nothing a token could be narrowed to, or there are too many.
    """
    kept = sorted({_checked(pattern) for pattern in patterns})
    if not kept:
        raise _invalid("it is narrowed to nothing", "name a resource, or leave them out")
    if len(kept) > MOST_PATTERNS:
        raise _invalid(
            f"it is narrowed to {len(kept)} resources, {MOST_PATTERNS} at most are compared",
            "name a directory above them, or a beginning with *",
        )
    return EVERYTHING if "*" in kept else tuple(kept)


def _checked(pattern: str) -> str:
    kind, _, name = pattern.partition(":")
    if pattern == "*":
        return pattern
    if len(pattern) > LONGEST_PATTERN or not pattern.isprintable():
        raise _invalid(
            f"a resource has at most {LONGEST_PATTERN} printable characters", "write it shorter"
        )
    if kind == "tenant":
        if _TENANT.fullmatch(name) is None:
            raise _invalid(
                f"{name[:80]!r} is no name of a tenant",
                "use 1 to 64 of A-Z a-z 0-9 . _ -, with * at the end for all that begin so",
            )
        return pattern
    if kind == "directory":
        if not name.startswith("/"):
            raise _invalid(f"the directory {name[:80]!r} is not absolute", "write it from / on")
        if ".." in name.split("/"):
            raise _invalid(f"the directory {name[:80]!r} goes up with ..", "write where it leads")
        if name.endswith("*"):
            parent, _, start = name[:-1].rpartition("/")
            return f"{directory(parent).rstrip('/')}/{start}*"
        return directory(name)
    raise _invalid(
        f"{pattern[:80]!r} names no kind of resource",
        "write tenant:NAME, directory:/PATH, or * for everything",
    )


def _invalid(why: str, remedy: str) -> TokenInvalidError:
    return TokenInvalidError("cannot make the token", why=why, remedy=remedy)

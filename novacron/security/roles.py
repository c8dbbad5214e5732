"""Who may do what."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """The roles a caller can have.

    ``viewer`` < ``operator`` < ``admin`` are for people and programs; each may do what the one
    before may. ``node`` is what a peer's certificate gives; it is on no ladder, so that a stolen
    node certificate administers nothing and an administrator's token speaks for no node.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    NODE = "node"
    JOIN = "join"
    """A join token's: it may ask for its certificate, once, and nothing else."""

    def allows(self, required: Role) -> bool:
        """Whether a caller with this role may do what *required* is required for."""
        if self is required:
            return True
        return _RANK.get(self, 0) > _RANK.get(required, len(_RANK))


_RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


class Principal:
    """An authenticated caller."""

    __slots__ = ("kind", "name", "resources", "role")

    def __init__(
        self, kind: str, name: str, role: Role, resources: tuple[str, ...] = ("*",)
    ) -> None:
        self.kind = kind
        """``token``, ``certificate`` or ``join``."""
        self.name = name
        """The token's id, or the node's id: what the audit log names."""
        self.role = role
        self.resources = resources
        """What the role is narrowed to; see :mod:`novacron.security.resources`."""

    def __repr__(self) -> str:
        return f"Principal({self.kind}:{self.name}, {self.role.value})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Principal):
            return NotImplemented
        return (self.kind, self.name, self.role, self.resources) == (
            other.kind,
            other.name,
            other.role,
            other.resources,
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.name, self.role, self.resources))

"""Secrets, encryption, certificates, tokens, roles and the audit log.

Names are imported when they are asked for: ``novacron audit verify`` takes the file format and
leaves TLS and the event loop alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from novacron.security.audit import AuditLog
    from novacron.security.certificates import ApiFiles, Certificates, PeerIdentity
    from novacron.security.component import Security
    from novacron.security.keyring import Keyring
    from novacron.security.policy import Decision, Rule, decide
    from novacron.security.roles import Principal, Role
    from novacron.security.token_record import CreatedToken
    from novacron.security.tokens import Tokens

__all__ = [
    "ApiFiles",
    "AuditLog",
    "Certificates",
    "CreatedToken",
    "Decision",
    "Keyring",
    "PeerIdentity",
    "Principal",
    "Role",
    "Rule",
    "Security",
    "Tokens",
    "decide",
]

_HOMES = {
    "ApiFiles": "certificates",
    "AuditLog": "audit",
    "Certificates": "certificates",
    "CreatedToken": "token_record",
    "Decision": "policy",
    "Keyring": "keyring",
    "PeerIdentity": "certificates",
    "Principal": "roles",
    "Role": "roles",
    "Rule": "policy",
    "Security": "component",
    "Tokens": "tokens",
    "decide": "policy",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"novacron.security.{home}"), name)
    globals()[name] = value
    return value

"""Who may do what: the one table, and the one decision, for every way into a node.

An action is what is done, whichever way it was asked for: REST maps its routes to actions, requests
of peers are actions by their own names. What is not in the table is denied.

A caller's *resources* narrow what its role gives, see :mod:`novacron.security.resources`. Of each kind
of resource they name, only what they name is the caller's; kinds they do not name are as the role
gives them. An action that concerns none of the kinds they name is denied, but for looking at what any
viewer may see of the node: so a kind that comes later is closed to tokens made before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from novacron.record import Record
from novacron.security.resources import is_narrowed, matches
from novacron.security.roles import Principal, Role


class Rule(Record):
    """What an action needs."""

    role: Role | None
    """The least role of a person or program; None: no such role will do."""
    node: bool = False
    """Whether a node's certificate will do. Nodes are on no ladder: each rule says."""
    changes: bool = False
    """Whether it changes something, and so is in the audit log before it is done."""
    resources: tuple[str, ...] = ()
    """The kinds of resource it concerns, of :data:`novacron.security.resources.KINDS`; none: the node
    as a whole."""


_TRANSFER = ("tenant", "directory")
"""Whose files, and which of this node."""

RULES: dict[str, Rule] = {
    "status.read": Rule(Role.VIEWER, node=True),
    "health.read": Rule(Role.VIEWER, node=True),
    "access.read": Rule(Role.VIEWER, node=True),
    "components.read": Rule(Role.VIEWER),
    "boot.read": Rule(Role.VIEWER),
    # Addresses, paths and references to secrets: not secret, but a map for whoever breaks in.
    "configuration.read": Rule(Role.OPERATOR),
    "environment.read": Rule(Role.VIEWER),
    "environment.refresh": Rule(Role.OPERATOR, changes=True),
    "peers.read": Rule(Role.VIEWER),
    "dwcp.read": Rule(Role.VIEWER),
    "mode.read": Rule(Role.VIEWER),
    "transfer.read": Rule(Role.VIEWER, resources=_TRANSFER),
    # An operator, within dwcp.amst.directories. Reading or writing any file of the host is an
    # administrator's business; the handler looks, because the path is in the body.
    "transfer.start": Rule(Role.OPERATOR, changes=True, resources=_TRANSFER),
    "transfer.pause": Rule(Role.OPERATOR, changes=True, resources=_TRANSFER),
    "transfer.resume": Rule(Role.OPERATOR, changes=True, resources=_TRANSFER),
    "transfer.cancel": Rule(Role.OPERATOR, changes=True, resources=_TRANSFER),
    "transfer.limit": Rule(Role.OPERATOR, changes=True, resources=_TRANSFER),
    "token.read": Rule(Role.ADMIN),
    "token.create": Rule(Role.ADMIN, changes=True),
    "token.revoke": Rule(Role.ADMIN, changes=True),
    "token.rotate": Rule(Role.ADMIN, changes=True),
    # Numbers, times and hashes: whoever is to look whether a log was rewritten needs no more rights.
    "anchors.read": Rule(Role.VIEWER),
    # For join tokens alone, and all that they are for.
    "node.join": Rule(Role.JOIN, changes=True),
    "certificate.renew": Rule(Role.ADMIN, changes=True),
    # Between nodes: who knows the newer list of revoked certificates, and a node's own renewal. The
    # list is signed by the authority, so that it is no matter who passes it on.
    "trust.state": Rule(None, node=True),
    "trust.crl": Rule(None, node=True),
    "trust.authority": Rule(None, node=True),
    "trust.sign": Rule(None, node=True, changes=True),
    # Which authorities are trusted, signed by them; and, signed by each node, that it trusts them.
    "trust.roots": Rule(None, node=True),
    "trust.report": Rule(None, node=True),
    # What peers ask for. A transfer or a link is a change once, when it begins or is ended by the
    # peer; what is said in between belongs to it.
    "amst.link": Rule(None, node=True, changes=True),
    "amst.close": Rule(None, node=True),
    "amst.rdma": Rule(None, node=True),
    "amst.dictionaries": Rule(None, node=True),
    "amst.begin": Rule(None, node=True, changes=True),
    "amst.entries": Rule(None, node=True),
    "amst.dedup": Rule(None, node=True),
    "amst.blocks": Rule(None, node=True),
    "amst.have": Rule(None, node=True),
    "amst.start": Rule(None, node=True),
    "amst.drop": Rule(None, node=True, changes=True),
    "amst.finish": Rule(None, node=True),
    "amst.end": Rule(None, node=True),
    "amst.pause": Rule(None, node=True, changes=True),
    "amst.control": Rule(None, node=True, changes=True),
    "amst.pull": Rule(None, node=True, changes=True),
    "amst.stream": Rule(None, node=True, changes=True),
}


class Decision(Record):
    allowed: bool
    action: str
    why: str
    """Which rule decided, as a sentence for people."""
    remedy: str = ""


def decide(
    principal: Principal,
    action: str,
    resources: Collection[str] | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> Decision:
    """Whether *principal* may do *action*.

    Args:
      resources: ``kind:name`` of everything it is done to; None: not known yet. An action that
        concerns resources is decided a second time, once they are.
    """
    rule = (RULES if rules is None else rules).get(action)
    if rule is None:
        return Decision(
            False, action, f"no rule allows {action}", "`novacron access list` has what there is"
        )
    by_role = _by_role(principal.role, action, rule)
    if not by_role.allowed or not is_narrowed(principal.resources):
        return by_role
    return _by_resource(principal.resources, action, rule, resources, by_role)


def _by_role(role: Role, action: str, rule: Rule) -> Decision:
    allowed = rule.node if role is Role.NODE else rule.role is not None and role.allows(rule.role)
    if allowed:
        return Decision(True, action, f"{action} is allowed for the role {role.value}")
    remedy = (
        f"use a token with the role {rule.role.value}"
        if rule.role is not None
        else "only another node may ask for it, over a session"
    )
    return Decision(False, action, f"{action} is not allowed for the role {role.value}", remedy)


def _by_resource(
    patterns: Collection[str],
    action: str,
    rule: Rule,
    resources: Collection[str] | None,
    by_role: Decision,
) -> Decision:
    narrowed = "the caller is narrowed to " + (", ".join(patterns) or "nothing")
    remedy = "use a token for this resource, or one that is not narrowed"
    if not rule.resources:
        if not rule.changes and rule.role is Role.VIEWER:
            return by_role
        return Decision(False, action, f"{narrowed}, and {action} concerns the whole node", remedy)
    kinds = [kind for kind in rule.resources if is_narrowed(tuple(patterns), kind)]
    if not kinds:
        of = " or ".join(rule.resources)
        return Decision(False, action, f"{narrowed}, and {action} takes a {of}", remedy)
    if resources is None:
        return by_role
    for kind in kinds:
        concerned = [name for name in resources if name.startswith(f"{kind}:")]
        if not concerned:
            return Decision(
                False, action, f"{narrowed}, and whose {kind} is concerned is not known", remedy
            )
        for name in concerned:
            if not any(matches(pattern, name) for pattern in patterns):
                return Decision(
                    False, action, f"{narrowed}, which {name[:200]} is not among", remedy
                )
    return Decision(True, action, f"{by_role.why}, and so is what it is narrowed to")

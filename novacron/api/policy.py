"""Who may call what: the one table of the API's routes.

A route that is not in it is refused when the application is built, and so is an entry without a
route: there is no default that could let a call through, and none that rots.
"""

from __future__ import annotations

from collections.abc import Iterable

from novacron.errors import ApiError, LocalProtocolError
from novacron.record import Record
from novacron.security import Role

PREFIX = "/api/v1"


class Rule(Record):
    """What a call needs, and how it is recorded."""

    role: Role
    """The least role of a person or program."""
    node: bool = False
    """Whether a node's certificate will do as well. Nodes are on no ladder: each route says."""
    action: str = ""
    """What a changing call is called in the audit log; empty for one that only reads."""


POLICY: dict[tuple[str, str], Rule] = {
    ("GET", "/api/v1/status"): Rule(Role.VIEWER, node=True),
    ("GET", "/api/v1/version"): Rule(Role.VIEWER, node=True),
    ("GET", "/api/v1/whoami"): Rule(Role.VIEWER, node=True),
    ("GET", "/api/v1/health"): Rule(Role.VIEWER, node=True),
    ("GET", "/api/v1/components"): Rule(Role.VIEWER),
    ("GET", "/api/v1/components/{name}"): Rule(Role.VIEWER),
    ("GET", "/api/v1/boot"): Rule(Role.VIEWER),
    ("GET", "/api/v1/boot/reports"): Rule(Role.VIEWER),
    ("GET", "/api/v1/boot/reports/{boot_id}"): Rule(Role.VIEWER),
    # Addresses, paths and references to secrets: not secret, but a map for whoever breaks in.
    ("GET", "/api/v1/configuration"): Rule(Role.OPERATOR),
    ("GET", "/api/v1/configuration/{key}"): Rule(Role.OPERATOR),
    ("GET", "/api/v1/environment"): Rule(Role.VIEWER),
    ("POST", "/api/v1/environment/refresh"): Rule(Role.OPERATOR, action="environment.refresh"),
    ("GET", "/api/v1/peers"): Rule(Role.VIEWER),
    ("GET", "/api/v1/dwcp"): Rule(Role.VIEWER),
    ("GET", "/api/v1/mode"): Rule(Role.VIEWER),
    ("GET", "/api/v1/transfers"): Rule(Role.VIEWER),
    ("GET", "/api/v1/transfers/{id}"): Rule(Role.VIEWER),
    # An operator, within dwcp.amst.directories. Reading or writing any file of the host is an
    # administrator's business; the handler looks, because the path is in the body.
    ("POST", "/api/v1/transfers"): Rule(Role.OPERATOR, action="transfer.start"),
    ("POST", "/api/v1/transfers/{id}/pause"): Rule(Role.OPERATOR, action="transfer.pause"),
    ("POST", "/api/v1/transfers/{id}/resume"): Rule(Role.OPERATOR, action="transfer.resume"),
    ("POST", "/api/v1/transfers/{id}/cancel"): Rule(Role.OPERATOR, action="transfer.cancel"),
    ("POST", "/api/v1/transfers/{id}/limit"): Rule(Role.OPERATOR, action="transfer.limit"),
    ("GET", "/api/v1/tokens"): Rule(Role.ADMIN),
    ("POST", "/api/v1/tokens"): Rule(Role.ADMIN, action="token.create"),
    ("DELETE", "/api/v1/tokens/{id}"): Rule(Role.ADMIN, action="token.revoke"),
    # For join tokens alone, and all that they are for.
    ("POST", "/api/v1/join"): Rule(Role.JOIN, action="node.join"),
    ("POST", "/api/v1/certificate/renew"): Rule(Role.ADMIN, action="certificate.renew"),
    ("GET", "/api/v1/openapi.json"): Rule(Role.VIEWER),
}

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class PolicyError(ApiError, LocalProtocolError):
    """A route and the table of roles disagree; the API is not built."""

    code = "api.policy"


def check_policy(
    routes: Iterable[tuple[str, str]], policy: dict[tuple[str, str], Rule] | None = None
) -> None:
    """Hold the (method, path) of every route against the table.

    Raises:
      PolicyError: a route has no rule, a rule has no route, or a changing route has no name for
        the audit log.
    """
    rules = POLICY if policy is None else policy
    found = set(routes)
    for method, path in sorted(found - rules.keys()):
        raise PolicyError(
            f"the route {method} {path} declares no role",
            remedy="add it to novacron/api/policy.py",
        )
    for method, path in sorted(rules.keys() - found):
        raise PolicyError(
            f"the policy has {method} {path}, which is no route",
            remedy="remove it from novacron/api/policy.py",
        )
    for (method, path), rule in rules.items():
        if (method in SAFE_METHODS) == bool(rule.action):
            raise PolicyError(
                f"the rule of {method} {path} and its method disagree on whether it changes anything",
                remedy="name an action exactly for the routes that change something",
            )


def permits(rule: Rule, role: Role) -> bool:
    if role is Role.NODE:
        return rule.node
    return role.allows(rule.role)

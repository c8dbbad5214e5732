"""What each route of the API does, in the words of the table that says who may do it.

A route that is not in it is refused when the application is built, and so is an entry without a
route: there is no default that could let a call through, and none that rots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from novacron.errors import ApiError, LocalProtocolError
from novacron.security.policy import RULES, Rule

PREFIX = "/api/v1"


ACTIONS: dict[tuple[str, str], str] = {
    ("GET", PREFIX + "/status"): "status.read",
    ("GET", PREFIX + "/version"): "status.read",
    ("GET", PREFIX + "/whoami"): "access.read",
    ("GET", PREFIX + "/health"): "health.read",
    ("GET", PREFIX + "/components"): "components.read",
    ("GET", PREFIX + "/components/{name}"): "components.read",
    ("GET", PREFIX + "/boot"): "boot.read",
    ("GET", PREFIX + "/boot/reports"): "boot.read",
    ("GET", PREFIX + "/boot/reports/{boot_id}"): "boot.read",
    ("GET", PREFIX + "/configuration"): "configuration.read",
    ("GET", PREFIX + "/configuration/{key}"): "configuration.read",
    ("GET", PREFIX + "/environment"): "environment.read",
    ("POST", PREFIX + "/environment/refresh"): "environment.refresh",
    ("GET", PREFIX + "/peers"): "peers.read",
    ("GET", PREFIX + "/dwcp"): "dwcp.read",
    ("GET", PREFIX + "/mode"): "mode.read",
    ("GET", PREFIX + "/transfers"): "transfer.read",
    ("GET", PREFIX + "/transfers/{id}"): "transfer.read",
    ("POST", PREFIX + "/transfers"): "transfer.start",
    ("POST", PREFIX + "/transfers/{id}/pause"): "transfer.pause",
    ("POST", PREFIX + "/transfers/{id}/resume"): "transfer.resume",
    ("POST", PREFIX + "/transfers/{id}/cancel"): "transfer.cancel",
    ("POST", PREFIX + "/transfers/{id}/limit"): "transfer.limit",
    ("GET", PREFIX + "/tokens"): "token.read",
    ("POST", PREFIX + "/tokens"): "token.create",
    ("DELETE", PREFIX + "/tokens/{id}"): "token.revoke",
    ("POST", PREFIX + "/tokens/{id}/rotate"): "token.rotate",
    ("POST", PREFIX + "/join"): "node.join",
    ("POST", PREFIX + "/certificate/renew"): "certificate.renew",
    ("GET", PREFIX + "/audit/anchors"): "anchors.read",
    ("GET", PREFIX + "/openapi.json"): "access.read",
}
"""What each route does; :data:`novacron.security.policy.RULES` says who may."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class PolicyError(ApiError, LocalProtocolError):
    """Routes and the two tables disagree; the API is not built."""

    code = "api.policy"


def rule_of(method: str, path: str) -> Rule:
    """Who may call a route."""
    return RULES[ACTIONS[method, path]]


def check_policy(
    routes: Iterable[tuple[str, str]],
    actions: Mapping[tuple[str, str], str] | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> None:
    """Hold the (method, path) of every route against the two tables.

    Raises:
      PolicyError: a route has no action, an action has no rule, an entry has no route, or a route
        that changes something is not one by its method.
    """
    named = ACTIONS if actions is None else actions
    known = RULES if rules is None else rules
    found = set(routes)
    for method, path in sorted(found - named.keys()):
        raise PolicyError(
            f"the route {method} {path} declares no action",
            remedy="add it to novacron/api/policy.py",
        )
    for method, path in sorted(named.keys() - found):
        raise PolicyError(
            f"the policy has {method} {path}, which is no route",
            remedy="remove it from novacron/api/policy.py",
        )
    for (method, path), action in named.items():
        rule = known.get(action)
        if rule is None:
            raise PolicyError(
                f"no rule says who may do {action}, which is what {method} {path} does",
                remedy="add it to novacron/security/policy.py",
            )
        if (method in SAFE_METHODS) == rule.changes:
            raise PolicyError(
                f"the rule of {action} and {method} {path} disagree on whether it changes anything",
                remedy="name an action that changes something exactly for the methods that do",
            )

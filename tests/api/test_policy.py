from __future__ import annotations

from typing import Any, cast

import pytest
from fastapi import FastAPI

from novacron.api.application import build, routes
from novacron.api.policy import POLICY, PolicyError, Rule, check_policy, permits
from novacron.api.services import Services
from novacron.security import Role


def built() -> FastAPI:
    return build(cast(Services, None))


def test_every_route_of_the_application_has_a_rule_and_every_rule_a_route() -> None:
    assert set(routes(built())) == set(POLICY)


def test_a_route_without_a_role_is_refused_at_construction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fewer = {key: rule for key, rule in POLICY.items() if key != ("GET", "/api/v1/peers")}
    monkeypatch.setattr("novacron.api.policy.POLICY", fewer)
    with pytest.raises(PolicyError, match="GET /api/v1/peers declares no role"):
        built()


def test_a_mount_or_a_websocket_is_refused_too() -> None:
    app = built()

    async def asgi(*_: Any) -> None: ...

    app.mount("/files", asgi)
    with pytest.raises(PolicyError, match="/files"):
        check_policy(routes(app))


def test_a_rule_without_a_route_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**POLICY, ("GET", "/api/v1/gone"): Rule(Role.VIEWER)}
    monkeypatch.setattr("novacron.api.policy.POLICY", more)
    with pytest.raises(PolicyError, match="is no route"):
        built()


@pytest.mark.parametrize(
    "policy",
    [
        {("POST", "/a"): Rule(Role.ADMIN)},
        {("GET", "/a"): Rule(Role.ADMIN, action="a.read")},
    ],
)
def test_exactly_the_changing_routes_are_named_for_the_audit_log(
    policy: dict[tuple[str, str], Rule],
) -> None:
    with pytest.raises(PolicyError, match="whether it changes anything"):
        check_policy(policy, policy)


def test_roles_are_a_ladder_and_nodes_stand_beside_it() -> None:
    operator = Rule(Role.OPERATOR)
    assert [permits(operator, role) for role in Role] == [False, True, True, False]
    shared = Rule(Role.OPERATOR, node=True)
    assert [permits(shared, role) for role in Role] == [False, True, True, True]


def test_nothing_that_changes_anything_is_open_to_viewers_or_nodes() -> None:
    for (method, _), rule in POLICY.items():
        if method != "GET":
            assert rule.role in (Role.OPERATOR, Role.ADMIN)
            assert not rule.node

from __future__ import annotations

from typing import Any, cast

import pytest
from fastapi import FastAPI

from novacron.api.application import build, routes
from novacron.api.policy import ACTIONS, PolicyError, check_policy, rule_of
from novacron.api.services import Services
from novacron.security import Role, Rule


def built() -> FastAPI:
    return build(cast(Services, None))


def test_every_route_of_the_application_has_an_action_and_every_action_here_a_route() -> None:
    assert set(routes(built())) == set(ACTIONS)


def test_a_route_without_an_action_is_refused_at_construction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fewer = {route: action for route, action in ACTIONS.items() if route[1] != "/api/v1/peers"}
    monkeypatch.setattr("novacron.api.policy.ACTIONS", fewer)
    with pytest.raises(PolicyError, match="GET /api/v1/peers declares no action"):
        built()


def test_a_mount_or_a_websocket_is_refused_too() -> None:
    app = built()

    async def asgi(*_: Any) -> None: ...

    app.mount("/files", asgi)
    with pytest.raises(PolicyError, match="/files"):
        check_policy(routes(app))


def test_an_entry_without_a_route_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIONS, ("GET", "/api/v1/gone"), "status.read")
    with pytest.raises(PolicyError, match="is no route"):
        built()


def test_an_action_without_a_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIONS, ("GET", "/api/v1/peers"), "peers.count")
    with pytest.raises(PolicyError, match=r"no rule says who may do peers\.count"):
        built()


@pytest.mark.parametrize(
    ("route", "rule"),
    [
        (("POST", "/a"), Rule(Role.ADMIN)),
        (("GET", "/a"), Rule(Role.ADMIN, changes=True)),
    ],
)
def test_exactly_the_changing_methods_do_what_changes_something(
    route: tuple[str, str], rule: Rule
) -> None:
    with pytest.raises(PolicyError, match="whether it changes anything"):
        check_policy([route], {route: "a"}, {"a": rule})


def test_nothing_that_changes_anything_is_open_to_viewers_or_nodes() -> None:
    for method, path in ACTIONS:
        if method != "GET":
            rule = rule_of(method, path)
            assert rule.role in (Role.OPERATOR, Role.ADMIN, Role.JOIN)
            assert not rule.node

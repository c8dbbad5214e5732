"""``novacron access``."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.security.policy import RULES
from tests.cli.booted import Booted


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    return Booted(tmp_path / "node", capsys)


def test_the_table_has_every_action_of_the_policy(node: Booted) -> None:
    listed = node.json("access", "list")
    assert [entry["action"] for entry in listed["actions"]] == sorted(RULES)
    shown = node.run("access", "list")
    line = next(line for line in shown.splitlines() if line.startswith("transfer.start "))
    assert line.split() == ["transfer.start", "operator", "no", "yes", "tenant,", "directory"]


def test_a_role_is_judged_by_its_rule(node: Booted) -> None:
    assert node.run("access", "check", "token.create", "--role", "admin").startswith("Allowed: ")
    denied = node.run("access", "check", "token.create", "--role", "operator", fails=1)
    assert "Denied: token.create is not allowed for the role operator." in denied
    assert "use a token with the role admin" in denied
    assert node.json("access", "check", "amst.link", "--role", "node")["allowed"] is True
    assert node.json("access", "check", "amst.link", "--role", "admin", fails=1)["why"]


def test_a_token_is_judged_by_its_role_and_its_resources(node: Booted) -> None:
    made = node.json(
        "token",
        "create",
        "acme",
        "--role",
        "operator",
        "--resource",
        "tenant:acme",
        "--resource",
        "directory:/srv/acme",
    )
    assert made["resources"] == ["directory:/srv/acme", "tenant:acme"]
    assert "directory:/srv/acme, tenant:acme" in node.run("token", "list")

    def check(*resources: str, fails: int = 0) -> str:
        named = [argument for name in resources for argument in ("--resource", name)]
        arguments = ("access", "check", "transfer.start", "--token", made["id"], *named)
        return node.run(*arguments, fails=fails)

    assert check("tenant:acme", "directory:/srv/acme/a.img").startswith("Allowed")
    assert "which tenant:other is not among" in check(
        "tenant:other", "directory:/srv/acme/a", fails=1
    )
    assert "directory:/etc is not among" in check(
        "tenant:acme", "directory:/srv/acme/../../etc", fails=1
    )
    node.run("token", "revoke", made["id"])
    assert "it is revoked" in check("tenant:acme", fails=1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["fly.away", "--role", "admin"], "no rule speaks of it"),
        (["status.read", "--token", "0123456789abcdef"], "none of this node's has this id"),
        (["transfer.start", "--role", "admin", "--resource", "acme"], "is no resource"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_to_do(
    node: Booted, arguments: list[str], why: str
) -> None:
    assert why in node.run("access", "check", *arguments, fails=1)


def test_a_token_narrowed_to_nonsense_is_not_made(node: Booted) -> None:
    shown = node.run("token", "create", "x", "--role", "viewer", "--resource", "acme", fails=1)
    assert "names no kind of resource" in shown
    assert len(node.json("token", "list")["tokens"]) == 1

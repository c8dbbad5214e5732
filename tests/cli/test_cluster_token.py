"""``novacron token --cluster``: what the running node is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from tests.cli.conftest import Answers

Run = Callable[..., tuple[int, str, str]]

MADE = {
    "id": "5f0c2b9d41e7a836",
    "secret": "ncc_5f0c2b9d41e7a836_secret",
    "role": "operator",
    "resources": ["tenant:acme"],
    "scope": "cluster",
}


@pytest.fixture
def token(run: Run, node: DataDirectory) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        return run("token", *arguments, "--cluster", "--data-dir", str(node.root))

    return call


def test_one_is_made_by_the_running_node_and_printed(rest: Answers, token: Run) -> None:
    rest.by_path["/api/v1/tokens"] = (201, MADE)
    status, out, err = token(
        "create", "ci", "--role", "operator", "--ttl", "1h", "--resource", "tenant:acme"
    )
    assert (status, out.strip(), err) == (0, MADE["secret"], "")
    assert rest.posted == [
        (
            "/api/v1/tokens",
            {
                "name": "ci",
                "role": "operator",
                "ttl": 3600.0,
                "resources": ["tenant:acme"],
                "scope": "cluster",
            },
        )
    ]


def test_one_that_cannot_be_handed_over_is_revoked(
    rest: Answers, token: Run, tmp_path: Path
) -> None:
    rest.by_path["/api/v1/tokens"] = (201, MADE)
    rest.by_path[f"/api/v1/tokens/{MADE['id']}"] = (200, {"id": MADE["id"], "state": "revoked"})
    taken = tmp_path / "taken"
    taken.write_text("precious")
    status, out, err = token("create", "ci", "--role", "operator", "--output", str(taken))
    assert status == 1
    assert "File exists" in err
    assert str(MADE["secret"]) not in out + err
    assert rest.deleted == [f"/api/v1/tokens/{MADE['id']}"]
    assert taken.read_text() == "precious"


def test_the_clusters_are_listed_without_the_nodes_own(rest: Answers, token: Run) -> None:
    entry = {"id": "a", "name": "ci", "role": "viewer", "resources": ["*"], "state": "active"}
    entry |= {"created": "2026-01-01T00:00:00Z", "expires": None}
    shared = entry | {"id": "b", "scope": "cluster", "created_by": "token:x"}
    rest.by_path["/api/v1/tokens"] = (200, {"tokens": [entry | {"scope": "node"}, shared]})
    status, out, _ = token("list", "--json")
    assert status == 0
    assert [found["id"] for found in json.loads(out)["tokens"]] == ["b"]
    assert "token:x" in token("list")[1]


def test_a_database_that_is_away_is_told(rest: Answers, token: Run) -> None:
    rest.by_path["/api/v1/tokens"] = (200, {"tokens": [], "cluster_unavailable": "PostgreSQL away"})
    status, out, err = token("list")
    assert (status, out) == (1, "")
    assert "PostgreSQL away" in err


def test_one_is_revoked_by_the_running_node(rest: Answers, token: Run) -> None:
    rest.by_path["/api/v1/tokens/5f0c"] = (200, {"id": "5f0c", "state": "revoked"})
    assert token("revoke", "5f0c")[0] == 0
    assert rest.deleted == ["/api/v1/tokens/5f0c"]
    assert token("revoke", "../boot")[0] == 1
    assert rest.deleted[-1] == "/api/v1/tokens/..%2Fboot"


def test_a_node_without_a_shared_database_says_so(rest: Answers, token: Run) -> None:
    rest.by_path["/api/v1/tokens"] = (
        503,
        {"detail": "there are no tokens of a cluster", "key": "database.engine"},
    )
    status, _, err = token("create", "ci", "--role", "viewer")
    assert status == 1
    assert "no tokens of a cluster" in err
    assert "database.engine" in err

"""``novacron pki``, and what the other commands say of an authority."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from novacron.cli import main
from novacron.cli.database import authorities_of
from novacron.cli.stored import StoredNode
from novacron.config.options import add_configuration_options
from novacron.security.join_token import parse
from tests.cli.booted import Booted
from tests.cli.conftest import write_node
from tests.security.stand_ins import OTHER_ID
from tests.trust.cluster import request_for


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    return Booted(tmp_path / "node", capsys)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    status = main([*arguments])
    shown = capsys.readouterr()
    return status, json.loads(shown.out) if shown.out else None, shown.err


def test_an_authority_is_made_once_and_the_first_boot_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "node"
    init = ("pki", "init", "--json", "--data-dir", str(root))
    _, first, _ = run(capsys, *init, "--name", "berlin")
    assert (first["made"], first["name"], first["held"]) == (True, "berlin", "by this node")
    _, again, _ = run(capsys, *init)
    assert (again["made"], again["authority"]) == (False, first["authority"])
    status, _, said = run(capsys, *init, "--name", "bonn")
    assert status == 1
    assert "it is called berlin" in said
    booted = Booted(root, capsys)
    assert booted.security.certificates.authority_hashes() == (first["authority"],)
    assert booted.json("pki", "show")["authority"] == first["authority"]


@pytest.mark.parametrize("name", ["", "x" * 41, "a\nb"])
def test_a_name_nobody_could_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root = tmp_path / "node"
    assert run(capsys, "pki", "init", "--name", name, "--data-dir", str(root))[0] == 1
    assert not root.exists()


def test_a_token_is_not_said_to_be_useless_where_the_running_node_can_be_reached(
    node: Booted, capsys: pytest.CaptureFixture[str]
) -> None:
    # The node was started with a file that this command is not given.
    create = ("token", "create", "--role", "node", "--data-dir", str(node.directory.root))
    assert "nobody can join yet" in " ".join(run(capsys, *create, "--json")[1]["warnings"])
    node.directory.run.mkdir(exist_ok=True)
    write_node(node.directory, os.getpid(), "0.0.0.0:7400")
    assert run(capsys, *create, "--json")[1]["warnings"] == []
    write_node(node.directory, os.getpid(), "127.0.0.1:7400")
    assert len(run(capsys, *create, "--json")[1]["warnings"]) == 1


def test_where_no_replacement_goes_on_none_is_asked_for(node: Booted) -> None:
    shown = node.run("pki", "rotate", "status")
    assert "no replacement is going on" in shown
    assert "next" not in shown
    assert "old authority" not in shown
    assert node.json("pki", "rotate", "status")["next"] == "novacron pki rotate begin"


def test_a_token_for_a_node_ends_with_the_authoritys_hash(node: Booted, tmp_path: Path) -> None:
    made = node.json("token", "create", "--role", "node", "--node-id", OTHER_ID)
    assert "the REST interface has no TLS" in made["warnings"][0]
    parsed = parse(made["token"])
    assert (parsed.id, parsed.authority) == (made["id"], node.json("pki", "show")["authority"])
    path = tmp_path / "join.token"
    node.run(
        "token", "create", "rack 4", "--role", "node", "--output", str(path), "--set", "api.tls=on"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    second = parse(path.read_text())
    listed = node.json("token", "list")["tokens"]
    assert [entry["role"] for entry in listed] == ["admin", "node", "node"]
    assert "rack 4" in node.run("token", "list")
    node.run("token", "revoke", second.id)
    assert node.json("token", "list")["tokens"][2]["state"] == "revoked"
    assert node.actions()[1:] == ["token.create", "token.create", "token.revoke"]


def test_what_was_issued_is_listed_and_taken_back(node: Booted) -> None:
    made = node.json("token", "create", "--role", "node")
    grant = node.security.issuer().join(made["id"], request_for(OTHER_ID, "b.example"))
    (listed,) = node.json("certificate", "list")["certificates"]
    assert (listed["serial"], listed["state"], listed["token"]) == (
        grant.serial,
        "valid",
        made["id"],
    )
    assert "b.example" in node.run("certificate", "list")
    said = node.run("certificate", "revoke", "7d0c0c57", "--reason", "superseded")
    assert grant.serial in said
    (listed,) = node.json("certificate", "list")["certificates"]
    assert (listed["state"], listed["reason"]) == ("revoked", "superseded")
    assert node.json("pki", "show")["revocation_list"] == 1
    # The running node sees it.
    revocations = node.security.certificates.revocations
    assert revocations.refresh_blocking()
    assert revocations.find(grant.serial) is not None
    assert "nothing was issued" in node.run("certificate", "revoke", "ffffffff", fails=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("token", "create", "--role", "viewer"), "it has no name"),
        (("token", "create", "x", "--role", "viewer", "--node-id", OTHER_ID), "--node-id"),
        (("token", "create", "--role", "node", "--node-id", "x"), "is no node's id"),
        (("token", "create", "--role", "node", "--ttl", "40d"), "1 second and 30 days"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    node: Booted, arguments: tuple[str, ...], says: str
) -> None:
    assert says in node.run(*arguments, fails=1)


@pytest.mark.parametrize(
    ("address", "says"),
    [("http://192.0.2.1:7400", "over TLS alone"), ("192.0.2.1:seven", "it is not HOST:PORT")],
)
def test_an_address_that_nobody_can_join_at_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, says: str
) -> None:
    token = "ncj_0123456789abcdef_" + "x" * 43 + "_" + "0" * 64
    root = tmp_path / "node"
    status, _, said = run(capsys, "join", address, "--token", token, "--data-dir", str(root))
    assert status == 1
    assert says in said
    assert not root.exists()
    assert token[:64] not in said


def test_the_authoritys_key_is_replaced_by_one_command_a_step(node: Booted) -> None:
    made = node.json("token", "create", "--role", "node")
    node.security.issuer().join(made["id"], request_for(OTHER_ID))
    old = node.json("pki", "show")["authority"]
    said = node.run("pki", "rotate", "issue", fails=1)
    assert "run `novacron pki rotate begin`" in said
    begun = node.json("pki", "rotate", "begin")
    new = begun["new_authority"]
    assert (begun["stage"], begun["old_authority"], begun["roots"]) == ("begun", old, 1)
    assert "is over" not in node.run("pki", "rotate", "abort")
    again = node.json("pki", "rotate", "begin")
    assert again["new_authority"] not in (old, new)
    new = again["new_authority"]
    # The other node does not run, and so says nothing.
    status = node.json("pki", "rotate", "status", fails=1)
    (other,) = status["nodes"]
    assert (other["node_id"], other["roots"], other["certificate"]) == (OTHER_ID, None, "old")
    said = node.run("pki", "rotate", "status", "--wait", "1s", fails=1)
    assert "waiting for 1 of 1 nodes" in said
    assert "has not said that it trusts" in said
    assert "1 of 1 nodes are to have" in node.run("pki", "rotate", "issue")
    said = node.run("pki", "rotate", "finish", fails=1)
    assert f"node {OTHER_ID}: it has not said" in said
    assert "--force" in said
    shown = node.json("pki", "show")
    assert (shown["authority"], shown["also_trusted"], shown["stage"]) == (new, [old], "issuing")
    assert node.json("token", "create", "--role", "node")["token"].endswith(new)
    finished = node.json("pki", "rotate", "finish", "--force")
    assert (finished["left_behind"], finished["revoked_tokens"]) == ([OTHER_ID], 0)
    assert node.json("pki", "show")["authority"] == new
    assert node.json("certificate", "show")["problems"] == []
    (left,) = node.json("certificate", "list")["certificates"]
    assert (left["authority"], left["state"]) == (old, "replaced")
    actions = [action for action in node.actions() if action.startswith("authority.")]
    # What was refused is on record like what was done: it is written down before.
    assert actions == [
        "authority.issue",
        "authority.begin",
        "authority.abort",
        "authority.begin",
        "authority.issue",
        "authority.finish",
        "authority.finish",
    ]
    parser = argparse.ArgumentParser()
    add_configuration_options(parser)
    args = parser.parse_args(["--data-dir", str(node.directory.root)])
    assert authorities_of(StoredNode(args, change=False)) == (old, new)

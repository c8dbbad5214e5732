"""``novacron audit anchors``, and ``novacron audit verify --anchors``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.booted import Booted
from tests.cli.conftest import Answers, write_node
from tests.security.rewriting import records, rewrite
from tests.security.stand_ins import NODE_ID, OTHER_ID

ASKED = f"/api/v1/audit/anchors?node_id={NODE_ID}"


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: Answers) -> Booted:
    """One whose node runs, as this process, and serves *rest*."""
    made = Booted(tmp_path / "node", capsys)
    for number in range(4):
        made.security.audit.append_blocking("vm.start", "token:abc", f"vm-{number}")
    made.directory.run.mkdir()
    write_node(made.directory, os.getpid(), rest.address)
    return made


def anchor(node: Booted, seq: int, **changes: Any) -> dict[str, Any]:
    hash = records(node.directory)[seq - 1]["hash"]
    entry = {"node_id": NODE_ID, "seq": seq, "hash": hash, "recorded": "2027-03-01T08:15:30Z"}
    return entry | changes


def answer(*entries: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"shared": True, "append_only": True, "anchors": list(entries)}


def swap(record: dict[str, Any]) -> None:
    if record["target"] == "vm-0":
        record["target"] = "vm-9"


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., str]:
    def write(*entries: dict[str, Any]) -> str:
        path = tmp_path / "anchors.json"
        path.write_text(json.dumps(answer(*entries)[1]))
        return str(path)

    return write


def test_the_running_node_is_asked_for_its_own_anchors(node: Booted, rest: Answers) -> None:
    rest.by_path[ASKED] = answer(anchor(node, 3))
    shown = node.run("audit", "verify", "--anchors")
    assert "Nothing was changed" in shown
    assert "1 anchor fits, the newest of record 3, made at 2027-03-01T08:15:30" in shown
    assert "The records from 4 on are not anchored yet" in shown
    document = node.json("audit", "verify", "--anchors")
    assert document["anchors"]["newest_fitting"]["seq"] == 3


def test_without_the_option_nobody_is_asked(node: Booted, rest: Answers) -> None:
    assert node.json("audit", "verify")["anchors"] is None
    assert rest.asked == []


def test_a_rewritten_chain_fails_with_the_anchor_its_time_and_what_that_means(
    node: Booted, rest: Answers
) -> None:
    held = anchor(node, 3)
    rest.by_path[ASKED] = answer(held)
    rewrite(node.directory, swap)
    shown = node.run("audit", "verify", "--anchors", fails=1)
    assert f"anchor of record 3: the log has the hash {records(node.directory)[2]['hash']}" in shown
    assert f"{held['hash']} was anchored at 2027-03-01T08:15:30" in shown
    assert "made anew since" in shown
    assert "see docs/runbook/audit-broken.md" in shown
    document = node.json("audit", "verify", "--anchors", fails=1)
    assert [entry["seq"] for entry in document["anchors"]["not_fitting"]] == [3]


def test_a_node_without_anchors_is_not_called_rewritten(node: Booted, rest: Answers) -> None:
    rest.by_path[ASKED] = answer()
    shown = node.run("audit", "verify", "--anchors", fails=1)
    assert "no anchor proves that it is the one that was written" in shown
    assert "was changed" not in shown


def test_a_node_that_shares_no_database_has_no_anchors_which_is_said(
    node: Booted, rest: Answers
) -> None:
    none = {"shared": False, "append_only": None, "anchors": []}
    rest.by_path[ASKED] = rest.by_path["/api/v1/audit/anchors?node_id="] = (200, none)
    for arguments in (("verify", "--anchors"), ("anchors",)):
        assert "shares no database" in node.run("audit", *arguments, fails=1)


def test_a_list_in_a_file_needs_no_running_node(
    node: Booted, rest: Answers, listed: Callable[..., str]
) -> None:
    file = listed(anchor(node, 5), anchor(node, 2, node_id=OTHER_ID, hash="f" * 64))
    assert "Nothing was changed" in node.run("audit", "verify", "--anchors", file)
    assert rest.asked == []


def test_a_copy_is_held_against_the_one_node_of_a_list_or_the_one_that_is_named(
    node: Booted, listed: Callable[..., str]
) -> None:
    copy = ("audit", "verify", "--path", str(node.directory.audit))
    assert "1 anchor fits" in node.run(*copy, "--anchors", listed(anchor(node, 5)))
    other = anchor(node, 2, node_id=OTHER_ID, hash="f" * 64)
    file = listed(anchor(node, 5), other)
    refused = node.run(*copy, "--anchors", file, fails=1)
    assert "add --node ID" in refused
    assert "1 anchor fits" in node.run(*copy, "--anchors", file, "--node", NODE_ID)
    assert "record 2" in node.run(*copy, "--anchors", file, "--node", OTHER_ID, fails=1)
    assert "add --node ID" in node.run(*copy, "--anchors", fails=1)


def test_a_node_without_anchors_to_hold_against_is_an_argument_too_many(node: Booted) -> None:
    assert "only --anchors has use for it" in node.run("audit", "verify", "--node", "x", fails=1)


def test_the_anchors_are_listed_and_a_database_that_protects_nothing_is_told(
    node: Booted, rest: Answers
) -> None:
    rest.by_path["/api/v1/audit/anchors?node_id="] = answer(anchor(node, 5), anchor(node, 3))
    shown = node.run("audit", "anchors")
    assert shown.splitlines()[0].split() == ["NODE", "ID", "SEQ", "RECORDED", "HASH"]
    assert len(shown.splitlines()) == 3
    status, document = answer(*(anchor(node, 5) for _ in range(60)))
    rest.by_path["/api/v1/audit/anchors?node_id="] = status, document | {"append_only": False}
    shown = node.run("audit", "anchors")
    assert "10 older ones are left out" in shown
    assert "lets the nodes change and remove anchors" in shown
    assert len(node.json("audit", "anchors")["anchors"]) == 60
    rest.by_path[ASKED] = answer(anchor(node, 5))
    assert len(node.json("audit", "anchors", "--node", NODE_ID)["anchors"]) == 1

"""Files between two real nodes, with the command an operator uses."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from novacron.units import MIB
from tests.integration.node_process import DEADLINE
from tests.integration.two_nodes import Pair, digest, left_over, sparse_image, start_both


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """256 MiB, of which 24 hold something."""
    blocks = ((0, MIB), (70 * MIB + 5, 3 * MIB), (200 * MIB, 20 * MIB))
    return sparse_image(tmp_path / "disk.img", 256 * MIB, *blocks)


def test_a_sparse_image_arrives_whole_and_sparse(nodes: Pair, image: Path) -> None:
    one, two = nodes
    os.utime(image, ns=(10**18, 10**18 + 7))
    image.chmod(0o640)
    out = one.run("send", str(image), f"{two.peer}:")
    assert out.startswith("sent 1 file, 256 MiB in ")
    arrived = two.transfers / "disk.img"
    assert digest(arrived) == digest(image)
    found = arrived.stat()
    assert found.st_blocks * 512 < 40 * MIB
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o640, 10**18 + 7)
    assert left_over(two.data) == []
    [sent], [received] = one.json("transfers")["transfers"], two.json("transfers")["transfers"]
    assert sent["id"] == received["id"]
    assert (sent["role"], received["role"]) == ("sender", "receiver")
    assert {sent["state"], received["state"]} == {"done"}
    assert sent["encrypted"] is True
    assert sent["bytes_moved"] < 30 * MIB


def test_a_directory_is_received_by_the_id_of_its_node(nodes: Pair, tmp_path: Path) -> None:
    one, two = nodes
    tree = two.transfers / "templates"
    (tree / "deep" / "empty").mkdir(parents=True)
    for number in range(30):
        (tree / "deep" / f"{number} ü.txt").write_text("x" * number)
    # A session first, so that the id is known.
    one.run("send", str(one.configuration), f"{two.peer}:session.json")
    target = tmp_path / "here"
    target.mkdir()
    one.run("receive", "-r", f"{two.id[:6]}:templates", f"{target}/")
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    copied = target / "templates"
    assert sorted(str(path.relative_to(copied)) for path in copied.rglob("*")) == names
    assert all(
        (copied / name).read_bytes() == (tree / name).read_bytes()
        for name in names
        if (tree / name).is_file()
    )


def test_ctrl_c_cancels_at_both_ends_and_leaves_nothing(nodes: Pair, tmp_path: Path) -> None:
    one, two = nodes
    image = sparse_image(tmp_path / "disk.img", 64 * MIB, (0, 64 * MIB))
    command = one.start_command("send", str(image), f"{two.peer}:", "--limit", "8M")
    try:
        one.wait_transfer(lambda view: view["bytes_done"] > 0)
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=DEADLINE)
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == 130, err
    assert "--detach" in err
    for node in nodes:
        node.wait_transfer(lambda view: view["state"] == "cancelled")
    give_up = time.monotonic() + DEADLINE
    while left_over(two.data):
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert list(two.transfers.iterdir()) == []


def test_a_transfer_is_paused_resumed_and_limited_from_either_end(
    nodes: Pair, tmp_path: Path
) -> None:
    one, two = nodes
    image = sparse_image(tmp_path / "disk.img", 64 * MIB, (0, 64 * MIB))
    id = one.run("send", str(image), f"{two.peer}:", "--limit", "4M", "--detach").strip()
    view = two.wait_transfer(lambda view: view["bytes_done"] > 0)
    assert (view["bytes_total"], view["files_total"]) == (64 * MIB, 1)
    two.run("transfers", "pause", id[:8])
    one.wait_transfer(lambda view: view["state"] == "paused")
    one.run("transfers", "resume", id)
    two.wait_transfer(lambda view: view["state"] == "moving")
    two.run("transfers", "limit", id, "none")
    one.run("transfers", "watch", id)
    assert digest(two.transfers / "disk.img") == digest(image)


def test_what_is_there_stays_unless_it_is_to_be_overwritten(nodes: Pair, image: Path) -> None:
    one, two = nodes
    (two.transfers / "disk.img").write_text("old")
    err = one.run("send", str(image), f"{two.peer}:", fails=1)
    assert "--overwrite" in err
    assert (two.transfers / "disk.img").read_text() == "old"
    one.run("send", str(image), f"{two.peer}:", "--overwrite")
    assert digest(two.transfers / "disk.img") == digest(image)


def test_nothing_leaves_the_directories_of_the_other_node(
    nodes: Pair, image: Path, tmp_path: Path
) -> None:
    one, two = nodes
    (tmp_path / "elsewhere").mkdir()
    (two.transfers / "link").symlink_to(tmp_path / "elsewhere")
    for path in ("/etc/novacron-test", "../up", "a/../../up", "link/up"):
        err = one.run("send", str(image), f"{two.peer}:{path}", fails=1)
        assert "is not allowed" in err, path
        assert "[dwcp.amst.directories" in err, path
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not Path("/etc/novacron-test").exists()
    assert not list(tmp_path.rglob("up"))


def test_an_operator_sends_from_the_directories_only_and_through_no_link(
    nodes: Pair, image: Path, tmp_path: Path
) -> None:
    one, two = nodes
    token = tmp_path / "operator.token"
    one.run("token", "create", "op", "--role", "operator", "--output", str(token))
    as_operator = ("--token-file", str(token))
    err = one.run("send", str(image), f"{two.peer}:", *as_operator, fails=1)
    assert "may not be moved by the role operator" in err
    (one.transfers / "link").symlink_to(tmp_path)
    (one.transfers / "direct.img").symlink_to(image)
    for name in ("link/disk.img", "direct.img"):
        one.run("send", str(one.transfers / name), f"{two.peer}:", *as_operator, fails=1)
    assert list(two.transfers.iterdir()) == []
    inside = sparse_image(one.transfers / "inside.img", MIB, (0, 1000))
    one.run("send", str(inside), f"{two.peer}:", *as_operator)
    assert digest(two.transfers / "inside.img") == digest(inside)


def test_a_node_without_the_other_says_so(stopped: Pair, image: Path) -> None:
    one, two = stopped
    one.start()
    err = one.run("send", str(image), f"{two.peer}:", fails=1)
    assert two.peer in err


def test_dwcp_says_what_it_moves_with(nodes: Pair, image: Path) -> None:
    one, two = nodes
    one.run("send", str(image), f"{two.peer}:")
    out = one.run("dwcp", "--streams")
    assert "protocol" in out
    assert f"{two.id}: version 3 over tcp, encrypted" in out


def test_a_version_1_node_and_a_version_3_node_understand_each_other(
    stopped: Pair, image: Path
) -> None:
    one, two = stopped
    two.settings["dwcp.amst.protocol"] = "v1"
    start_both(*stopped)
    one.run("send", str(image), f"{two.peer}:there.img")
    [view] = one.json("transfers")["transfers"]
    assert (view["protocol"], view["encrypted"]) == (1, True)
    two.run("send", str(image), f"{one.peer}:back.img")
    assert digest(two.transfers / "there.img") == digest(one.transfers / "back.img")


def test_the_audit_log_has_who_started_what(nodes: Pair, image: Path) -> None:
    one, two = nodes
    one.run("send", str(image), f"{two.peer}:")
    id = one.json("transfers")["transfers"][0]["id"]
    records = one.json("audit", "show", "--action", "transfer.start")["records"]
    assert (records[-1]["target"], records[-1]["outcome"]) == (id, "success")
    assert records[-1]["actor"].startswith("token:")

"""What two real nodes do not move, and what they say about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from novacron.units import MIB
from tests.integration.node_process import DEADLINE
from tests.integration.two_nodes import Pair, digest, left_over, sparse_image

SIZE = 24 * MIB


def test_links_and_pipes_in_a_tree_are_skipped_and_told_of(nodes: Pair, tmp_path: Path) -> None:
    one, two = nodes
    tree = tmp_path / "tree"
    (tree / "a b").mkdir(parents=True)
    for number in range(300):
        (tree / "a b" / f"file {number} Ж.txt").write_bytes(os.urandom(number))
    (tree / "link").symlink_to("/etc/hostname")
    os.mkfifo(tree / "pipe")
    view = one.json("send", "-r", str(tree), f"{two.peer}:")
    assert (view["state"], view["files_skipped"]) == ("done", 2)
    assert {each["path"]: each["why"] for each in view["skipped"]} == {
        "tree/link": "it is a symbolic link",
        "tree/pipe": "it is a pipe",
    }
    again = one.start_command("send", "-r", "--overwrite", str(tree), f"{two.peer}:")
    out, err = again.communicate(timeout=DEADLINE)
    assert again.returncode == 0, err
    assert "2 skipped" in out
    assert "not sent: tree/pipe: it is a pipe" in err
    arrived = two.transfers / "tree"
    assert sorted(path.name for path in arrived.iterdir()) == ["a b"]
    for file in (tree / "a b").iterdir():
        assert (arrived / "a b" / file.name).read_bytes() == file.read_bytes()


def test_a_viewer_looks_and_changes_nothing(nodes: Pair, tmp_path: Path) -> None:
    one, two = nodes
    token = tmp_path / "viewer.token"
    one.run("token", "create", "eyes", "--role", "viewer", "--output", str(token))
    as_viewer = ("--token-file", str(token))
    inside = sparse_image(one.transfers / "inside.img", SIZE, (0, SIZE))
    err = one.run("send", str(inside), f"{two.peer}:", *as_viewer, fails=1)
    assert "viewer" in err
    assert list(two.transfers.iterdir()) == []
    id = one.run("send", str(inside), f"{two.peer}:", "--limit", "2M", "--detach").strip()
    assert id[:8] in one.run("transfers", "list", *as_viewer)
    for action in ("pause", "cancel"):
        assert "viewer" in one.run("transfers", action, id, *as_viewer, fails=1)
    assert one.ask(f"transfers/{id}")["state"] in ("waiting", "connecting", "moving")


@pytest.mark.parametrize("mode", ["refuse", "restart"])
def test_a_file_that_changes_while_it_is_sent_arrives_whole_or_not_at_all(
    nodes: Pair, tmp_path: Path, mode: str
) -> None:
    one, two = nodes
    image = sparse_image(tmp_path / "disk.img", SIZE, (0, SIZE))
    (two.transfers / "disk.img").write_text("old")
    command = one.start_command(
        *("send", str(image), f"{two.peer}:", "--limit", "8M"),
        *("--overwrite", "--on-change", mode),
    )
    try:
        view = one.wait_transfer(lambda view: view["bytes_done"] > 4 * MIB)
        with image.open("r+b") as file:
            for offset in (0, 16 * MIB):
                file.seek(offset)
                file.write(os.urandom(MIB))
        one.run("transfers", "limit", view["id"], "none")
        _, err = command.communicate(timeout=DEADLINE)
    finally:
        command.kill()
        command.communicate()
    if mode == "restart":
        assert command.returncode == 0, err
        assert digest(two.transfers / "disk.img") == digest(image)
    else:
        assert command.returncode == 1
        assert "changed while it was being sent" in err
        assert "snapshot" in err
        assert (two.transfers / "disk.img").read_text() == "old"
        # What is partial is kept for another attempt; cancelling says that there is none.
        one.run("transfers", "cancel", view["id"])
    assert left_over(two.data) == []

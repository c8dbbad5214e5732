"""Versions and clones of a disk image between two real nodes: what moves, and what is said of it."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest

from novacron.units import KIB, MIB
from tests.integration.node_process import DEADLINE, ask
from tests.integration.two_nodes import LocalNode, Pair, digest, left_over, start_both

SIZE = 48 * MIB
BESIDE = 640 * KIB
"""What a change of a few bytes costs at most: two blocks of 256 KiB, and what encoding adds."""


@pytest.fixture
def looking(stopped: Pair) -> Pair:
    """Two nodes that look for what they hold although they are on one host."""
    for node in stopped:
        node.settings["dwcp.hde.dedup"] = "always"
    start_both(*stopped)
    return stopped


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(5).randbytes(SIZE))
    return path


def wait_indexed(node: LocalNode) -> None:
    give_up = time.monotonic() + DEADLINE
    while node.ask("dwcp")["blocks"]["files_waiting"]:
        assert time.monotonic() < give_up
        time.sleep(0.1)


def metric(node: LocalNode, name: str) -> float:
    _, text = ask(f"127.0.0.1:{node.ports['monitoring']}", "/metrics")
    found = re.search(rf"^{re.escape(name)} (\S+)$", text.decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_a_second_version_moves_only_what_changed_and_says_so(looking: Pair, image: Path) -> None:
    one, two = looking
    one.run("send", str(image), f"{two.peer}:")
    wait_indexed(two)
    with image.open("r+b") as file:
        file.seek(20 * MIB + 77)
        file.write(os.urandom(1000))
    out = one.run("send", str(image), f"{two.peer}:", "--overwrite")
    assert digest(two.transfers / "disk.img") == digest(image)
    assert re.search(r"; 4[78]\.\d MiB were there already, \d+(\.\d)? KiB moved, ", out), out
    for node in looking:
        view = node.json("transfers")["transfers"][0]
        assert 1000 <= view["bytes_moved"] <= BESIDE
        assert view["bytes_deduplicated"] >= SIZE - BESIDE
        assert view["bytes_moved"] + view["bytes_deduplicated"] == view["bytes_done"] == SIZE
        assert view["wire_bytes"] <= BESIDE
    shown = one.run("transfers", "show", view["id"])
    assert f"bytes_deduplicated: {view['bytes_deduplicated']} (" in shown
    assert left_over(two.data) == []
    wait_indexed(two)
    assert metric(two, "novacron_dwcp_blocks_indexed_total") >= 2 * SIZE / (256 * KIB)
    assert metric(two, "novacron_dwcp_block_index_bytes") > 0
    saved = metric(one, 'novacron_dwcp_deduplicated_bytes_total{direction="sent"}')
    assert saved == view["bytes_deduplicated"]


def test_content_that_shifted_and_a_clone_move_next_to_nothing(looking: Pair, image: Path) -> None:
    one, two = looking
    one.run("send", str(image), f"{two.peer}:")
    wait_indexed(two)
    image.write_bytes(os.urandom(1000) + image.read_bytes())
    view = one.json("send", str(image), f"{two.peer}:", "--overwrite")
    assert digest(two.transfers / "disk.img") == digest(image)
    assert 1000 <= view["bytes_moved"] <= BESIDE
    assert view["wire_bytes"] <= BESIDE
    wait_indexed(two)
    view = one.json("send", str(image), f"{two.peer}:clones/7.img")
    assert (view["bytes_moved"], view["wire_bytes"]) == (0, 0)
    assert view["bytes_deduplicated"] == SIZE + 1000
    assert digest(two.transfers / "clones" / "7.img") == digest(image)


def test_tenants_and_whoever_does_not_want_it_get_no_hit(looking: Pair, image: Path) -> None:
    one, two = looking
    one.run("send", str(image), f"{two.peer}:", "--tenant", "acme")
    wait_indexed(two)
    for name, arguments in (
        ("default.img", ()),
        ("other.img", ("--tenant", "other")),
        ("never.img", ("--tenant", "acme", "--dedup", "never")),
        ("auto.img", ("--tenant", "acme", "--dedup", "auto")),
    ):
        view = one.json("send", str(image), f"{two.peer}:{name}", *arguments)
        assert (view["bytes_moved"], view["bytes_deduplicated"]) == (SIZE, 0), name
    view = one.json("send", str(image), f"{two.peer}:same.img", "--tenant", "acme")
    assert (view["bytes_moved"], view["bytes_deduplicated"]) == (0, SIZE)


def test_a_receiver_that_is_killed_while_it_fills_goes_on_and_ends_up_right(
    looking: Pair, tmp_path: Path
) -> None:
    one, two = looking
    image = tmp_path / "large.img"
    with image.open("wb") as file:
        for seed in range(8):
            file.write(random.Random(seed).randbytes(48 * MIB))
    one.run("send", str(image), f"{two.peer}:")
    wait_indexed(two)
    with image.open("r+b") as file:
        file.seek(200 * MIB)
        file.write(os.urandom(100))
    id = one.run("send", str(image), f"{two.peer}:copy.img", "--detach").strip()
    give_up = time.monotonic() + DEADLINE
    while not any(path.stat().st_blocks for path in two.transfers.glob(".copy.img.*")):
        assert time.monotonic() < give_up
        time.sleep(0.005)
    two.kill()
    assert not (two.transfers / "copy.img").exists()
    two.start()
    view = one.wait_transfer(lambda view: view["state"] in ("done", "failed"))
    assert (view["id"], view["state"]) == (id, "done")
    assert digest(two.transfers / "copy.img") == digest(image)
    assert view["bytes_moved"] <= BESIDE
    assert left_over(two.data) == []


def test_a_node_without_it_gets_everything(stopped: Pair, image: Path) -> None:
    one, two = stopped
    one.settings["dwcp.hde.dedup"] = "always"
    two.settings["dwcp.hde.dedup"] = "never"
    start_both(*stopped)
    for name in ("one.img", "two.img"):
        view = one.json("send", str(image), f"{two.peer}:{name}")
        assert (view["bytes_moved"], view["bytes_deduplicated"]) == (SIZE, 0)
    assert not (two.data / "dwcp" / "blocks").exists()

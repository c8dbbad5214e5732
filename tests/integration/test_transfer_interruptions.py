"""Nodes that die or stop while they move files, and what is moved twice for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from novacron.units import MIB
from tests.integration.node_process import DEADLINE
from tests.integration.two_nodes import Pair, digest, left_over, sparse_image, start_both

SIZE = 32 * MIB
RATE = 8_000_000
WINDOW = 4 * MIB
SLOW_DISK = 2
"""Seconds from one record of what is durable to the next: one, and as much for a disk that is busy."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_image(tmp_path / "disk.img", SIZE, (0, SIZE))


@pytest.fixture
def patient(stopped: Pair) -> Pair:
    """Running, and waiting longer for a lost link than any test does: what goes on does so because
    it was noticed that the other node is back."""
    for node in stopped:
        node.settings |= {
            "dwcp.amst.link_timeout": "600",
            "dwcp.amst.window_bytes": str(WINDOW),
        }
    start_both(*stopped)
    return stopped


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("victim", [0, 1], ids=["sender", "receiver"])
def test_a_node_that_is_killed_in_mid_transfer_goes_on_after_its_restart(
    patient: Pair, image: Path, victim: int, seed: int
) -> None:
    one, two = patient
    at = random.Random(f"{seed} {victim}").uniform(0.2, 0.8) * SIZE
    command = one.start_command("send", str(image), f"{two.peer}:", "--limit", str(RATE))
    try:
        view = one.wait_transfer(lambda view: view["bytes_done"] > at)
        patient[victim].kill()
        # A process that is killed says nothing of what it moved last.
        patient[victim].start()
        one.run("transfers", "limit", view["id"], "none")
        out, err = command.communicate(timeout=DEADLINE)
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == 0, err
    if victim == 0:
        assert "the node is back" in err
    assert out.startswith("sent 1 file, 32.0 MiB")
    assert digest(two.transfers / "disk.img") == digest(image)
    assert left_over(two.data) == []
    assert not list((two.data / "dwcp" / "incoming").glob("*/*.journal"))
    again = two.ask("transfers")["transfers"][0]
    assert again["state"] == "done"
    if victim == 1:
        moved = one.ask("transfers")["transfers"][0]["bytes_moved"]
        assert SIZE <= moved <= SIZE + WINDOW + SLOW_DISK * RATE
    else:
        assert SIZE <= again["bytes_moved"] <= SIZE + WINDOW + SLOW_DISK * RATE


@pytest.mark.parametrize("leaver", [0, 1], ids=["sender", "receiver"])
def test_a_node_stops_in_order_in_mid_transfer_and_goes_on_when_it_is_back(
    patient: Pair, image: Path, leaver: int
) -> None:
    one, two = patient
    arguments = ("send", str(image), f"{two.peer}:", "--limit", str(RATE), "--detach")
    id = one.run(*arguments).strip()
    two.wait_transfer(lambda view: view["bytes_done"] > SIZE // 4)
    process = patient[leaver].process
    assert process is not None
    assert process.stop() == 0
    assert not [record for record in process.log() if record["level"] in ("error", "critical")]
    patient[leaver].start()
    one.run("transfers", "limit", id, "none")
    assert f"{id[:8]} done" in one.run("transfers", "watch", id)
    assert digest(two.transfers / "disk.img") == digest(image)
    assert left_over(two.data) == []
    # What was on its way is sent again, and no more: a node that stops records what it has.
    assert one.ask("transfers")["transfers"][0]["bytes_moved"] <= SIZE + 2 * WINDOW


def test_a_cancelled_transfer_leaves_nothing_at_either_end(patient: Pair, image: Path) -> None:
    one, two = patient
    arguments = ("send", str(image), f"{two.peer}:", "--limit", str(RATE), "--detach")
    id = one.run(*arguments).strip()
    two.wait_transfer(lambda view: view["bytes_done"] > 2 * MIB)
    assert left_over(two.transfers)
    two.run("transfers", "cancel", id)
    for node in patient:
        node.wait_transfer(lambda view: view["state"] == "cancelled")
    assert list(two.transfers.iterdir()) == []
    assert list((two.data / "dwcp" / "incoming").glob("*/*.journal")) == []
    # Nor does a restart take it up again.
    for node in patient:
        node.kill()
    start_both(*patient)
    assert one.ask("transfers?state=active")["transfers"] == []
    assert two.ask("transfers?state=active")["transfers"] == []
    assert list(two.transfers.iterdir()) == []

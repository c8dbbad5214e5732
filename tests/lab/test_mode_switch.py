"""A path that becomes another one under two nodes and a transfer between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab.netns import Namespace
from bench.lab.relay import WanPath, wan
from novacron.units import MIB
from tests.integration.node_process import wait_until
from tests.integration.two_nodes import LocalNode, digest, sparse_image, two_nodes
from tests.lab.privilege import needs_lab

pytestmark = needs_lab

COOL_DOWN = 3
ROUND_TRIP_MS = 60
RATE = "2M"
SIZE = 160 * MIB
"""More than that rate carries while anything is waited for."""


def eventually(condition: Callable[[], bool]) -> None:
    wait_until(condition, every=0.1)


class Distant:
    """A node in a namespace of its own; it can be asked from there only."""

    def __init__(self, node: LocalNode, namespace: Namespace, address: str) -> None:
        self.node = node
        self.address = address
        self._namespace = namespace
        node.settings["network.listen_address"] = address
        node.settings["dwcp.detection.cool_down"] = str(COOL_DOWN)

    @property
    def peer(self) -> str:
        return f"{self.address}:{self.node.ports['network']}"

    def launch(self) -> None:
        with self._namespace.entered():
            self.node.launch()

    def ask(self, path: str) -> Any:
        with self._namespace.entered():
            return self.node.ask(path)

    def run(self, *arguments: str) -> str:
        with self._namespace.entered():
            return self.node.run(*arguments)

    def mode(self) -> tuple[str, bool]:
        answer = self.ask("mode")
        return answer["mode"], answer["measured"]


@pytest.fixture
def path() -> Iterator[WanPath]:
    with wan() as found:
        yield found


@pytest.fixture
def ends(path: WanPath, tmp_path: Path) -> Iterator[tuple[Distant, Distant]]:
    """Two nodes with a session, at the ends of *path*."""
    with two_nodes(tmp_path) as (one, two):
        a = Distant(one, path.a, path.address_a)
        b = Distant(two, path.b, path.address_b)
        two.settings["network.seeds"] = json.dumps([a.peer])
        for end in (a, b):
            end.launch()
        for node in (one, two):
            assert node.process is not None
            node.process.wait_ready()
        yield a, b


def test_a_transfer_goes_on_while_its_path_moves_to_the_other_end_of_a_continent(
    path: WanPath, ends: tuple[Distant, Distant], tmp_path: Path
) -> None:
    a, b = ends
    for end in ends:
        eventually(lambda end=end: end.mode() == ("datacenter", True))
    image = sparse_image(tmp_path / "disk.img", SIZE, (0, SIZE))
    id = a.run("send", str(image), f"{b.peer}:disk.img", "--limit", RATE, "--detach").strip()
    eventually(lambda: a.ask(f"transfers/{id}")["bytes_moved"] > 4 * MIB)
    [link] = a.ask("dwcp")["links"]

    path.relay.change("both", delay_ms=ROUND_TRIP_MS / 2)
    for end in ends:
        eventually(lambda end=end: end.mode() == ("internet", True))
    transfer = a.ask(f"transfers/{id}")
    assert transfer["state"] == "moving"
    assert transfer["bytes_moved"] < SIZE
    # Nothing was torn down for it: the same link, with what was agreed on.
    [later] = a.ask("dwcp")["links"]
    assert later["counters"]["sent_bytes"] > link["counters"]["sent_bytes"]
    assert {s["id"] for s in link["streams"]} & {s["id"] for s in later["streams"]}
    assert later["encrypted"]

    answer = a.ask("mode")
    assert [(each["was"], each["mode"]) for each in answer["switches"]] == [
        ("hybrid", "datacenter"),
        ("datacenter", "internet"),
    ]
    [shown] = answer["paths"]
    assert shown["mode"] == "internet"
    assert shown["round_trip_minimum_seconds"] >= ROUND_TRIP_MS / 1000
    assert shown["scores"]["internet"] > shown["scores"]["hybrid"]
    assert a.node.process is not None
    told = a.node.process.wait_log("the network mode is internet")
    assert (told["event"], told["was"], told["measured"]) == ("mode_switched", "datacenter", True)

    a.run("transfers", "limit", id, "none")
    eventually(lambda: a.ask(f"transfers/{id}")["state"] == "done")
    assert a.ask(f"transfers/{id}")["errors"] == []
    assert digest(b.node.transfers / "disk.img") == digest(image)


def test_a_path_that_comes_back_near_is_a_datacenter_again_and_nothing_else_between(
    path: WanPath, ends: tuple[Distant, Distant]
) -> None:
    a, _ = ends
    eventually(lambda: a.mode() == ("datacenter", True))
    path.relay.change("both", delay_ms=ROUND_TRIP_MS)
    eventually(lambda: a.mode() == ("internet", True))
    path.relay.change("both", delay_ms=0)
    eventually(lambda: a.mode() == ("datacenter", True))
    names = [each["mode"] for each in a.ask("mode")["switches"]]
    assert names == ["datacenter", "internet", "datacenter"]

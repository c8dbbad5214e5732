"""The network mode of two real nodes on one machine, as operators and programs see it."""

from __future__ import annotations

import json

from tests.integration.node_process import ask, wait_until
from tests.integration.two_nodes import LocalNode, Pair, start_both


def with_seed(one: LocalNode, two: LocalNode) -> None:
    two.settings["network.seeds"] = json.dumps([one.peer])
    start_both(one, two)


def test_peers_on_one_machine_are_measured_and_the_mode_is_not(stopped: Pair) -> None:
    one, two = stopped
    with_seed(one, two)
    for node in stopped:
        wait_until(
            lambda node=node: [path["samples"] for path in node.ask("mode")["paths"]] == [10],
            every=0.1,
        )
    answer = one.ask("mode")
    assert (answer["mode"], answer["measured"], answer["forced"]) == ("hybrid", False, False)
    assert answer["why"].startswith("no path to another host is measured")
    [path] = answer["paths"]
    assert (path["peer"], path["same_host"], path["mode"]) == (two.id, True, None)
    assert 0 < path["round_trip_minimum_seconds"] <= path["round_trip_seconds"]
    assert path["rate_bps"] is None
    out = one.run("mode")
    assert out.startswith("hybrid (unmeasured) for ")
    assert "same host" in out
    assert one.json("mode").keys() == answer.keys()
    assert one.ask("dwcp")["mode"] == {
        "wanted": "auto",
        "got": "hybrid (unmeasured)",
        "why": answer["why"],
    }
    _, text = ask(f"127.0.0.1:{one.ports['monitoring']}", "/metrics")
    lines = text.decode().splitlines()
    assert 'novacron_environment_mode{mode="hybrid"} 1.0' in lines
    assert "novacron_environment_mode_measured 0.0" in lines
    assert any(
        line.startswith(f'novacron_environment_path_round_trip_seconds{{peer="{two.id}"}}')
        for line in lines
    )


def test_a_forced_mode_is_the_mode_and_says_what_there_would_be(stopped: Pair) -> None:
    one, two = stopped
    one.settings["dwcp.mode"] = "internet"
    with_seed(one, two)
    answer = one.ask("mode")
    assert (answer["mode"], answer["measured"], answer["forced"]) == ("internet", False, True)
    assert answer["why"].startswith("dwcp.mode says so; without it: hybrid, unmeasured")
    assert one.ask("dwcp")["mode"]["got"] == "internet"
    assert one.run("mode").startswith("internet (forced, unmeasured) for ")
    assert not two.ask("mode")["forced"]

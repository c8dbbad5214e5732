"""The bench of congestion prevention runs whole nodes at a bottleneck, and its figures follow from what
the relay saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as entry
from bench import acp, acp_scenarios
from bench.acp_scenarios import RoundTrips, carried, jain, settled
from bench.amst_pair import write_random
from bench.harness import BenchError
from bench.lab.netns import obstacle
from bench.lab.relay import wan
from bench.lab_nodes import Site, nodes


def test_jains_index_is_one_where_all_get_the_same_and_less_where_one_gets_most() -> None:
    assert jain([5.0, 5.0, 5.0]) == 1
    assert jain([10.0, 0.0]) == 0.5
    assert jain([3.0, 1.0]) == pytest.approx(0.8)
    assert jain([0.0, 0.0]) == 1


def test_a_queue_is_short_again_when_it_has_stayed_so_for_a_while() -> None:
    moments = [(n / 10, 50.0) for n in range(10)]
    moments += [(1.0, 5.0), (1.1, 5.0), (1.2, 20.0)]
    moments += [(1.3 + n / 10, 5.0) for n in range(10)]
    assert settled(moments, 10.0, 0.5) == 1.3
    assert settled(moments, 10.0, 0.1) == 1.0
    assert settled(moments, 60.0, 0.5) == 0.0
    assert settled(moments, 1.0, 0.5) is None
    assert settled(moments[:15], 10.0, 0.5) is None
    assert settled([], 10.0, 0.5) is None


def stream(rtt: int, least: int) -> dict[str, Any]:
    return {"rtt_us": rtt, "min_rtt_us": least, "congestion": "bbr"}


def test_round_trips_are_compared_with_the_least_of_all_streams_and_times() -> None:
    trips = RoundTrips()
    trips.add([stream(10_000, 10_000), stream(0, 0)])
    assert trips.count == 1
    # This one began when the queue stood: its own least is no measure of the path.
    trips.add([stream(30_000, 25_000), stream(20_000, 10_000), stream(40_000, 25_000)])
    trips.add([])
    found = trips.figures(1)
    assert (found["rtt_ms"], found["min_rtt_ms"], found["rtt_ratio"]) == (30.0, 10.0, 3.0)
    assert (found["streams_open"], found["congestion_used"]) == (3, "bbr")
    with pytest.raises(BenchError, match="did not tell of a round trip"):
        trips.figures(2)


def test_of_several_rounds_the_medians_are_given_and_what_failed_is_told() -> None:
    rounds = [
        {"mbps": [1.0, 2.0], "jain": 0.9, "react": 1.0},
        {"error": "it broke"},
        {"mbps": [3.0, 4.0], "jain": 0.7, "react": None},
        {"mbps": [5.0, 6.0], "jain": 0.8, "react": 3.0},
    ]
    assert acp.medians(rounds) == {
        "mbps": [5.0, 6.0],
        "jain": 0.8,
        "react": 3.0,
        "failed_rounds": ["it broke"],
    }
    assert acp.medians([{"error": "a"}, {"error": "b"}]) == {"error": "b"}


def rows() -> dict[str, list[dict[str, Any]]]:
    one = {"goodput_mbps": 90.0, "added_ms_mean": 2.0, "added_ms_peak": 9.0, "streams_open": 4}
    one |= {"dropped_packets": 0}
    return {
        "queue": [
            {"congestion": "bbr", "acp": "off", "rtt_ratio": 4.0, "link_share": 0.99, **one},
            {"congestion": "bbr", "acp": "on", "rtt_ratio": 1.2, "link_share": 0.96, **one},
            {"congestion": "reno", "acp": "on", "rtt_ratio": 1.4, "link_share": 0.97, **one},
        ],
        "transfers": [
            {"fairness": "transfer", "streams": [0, 0], "mbps": [48.0, 50.0], "jain": 0.999},
            {"fairness": "transfer", "streams": [8, 2], "mbps": [58.0, 40.0], "jain": 0.967},
            {"fairness": "flow", "streams": [0, 0], "error": "it broke"},
        ],
        "halved": [{"acp": "off", "seconds_to_react": None, "link_share": 1.0}],
    }


def test_the_summary_is_of_the_worst_rows(tmp_path: Path) -> None:
    top = acp.summary(rows())
    assert top["rtt_ratio"] == {"off": 4.0, "on": 1.4}
    assert top["link_share"] == {"off": 0.99, "on": 0.96}
    assert top["jain_transfers"] == {"flow": None, "transfer": 0.967, "greedy": None}
    assert top["jain_tcp"] == {"flow": None, "transfer": None, "greedy": None}
    assert top["seconds_to_react"] == {"off": None, "on": None}
    path = {"rate_mbps": 100.0, "delay_ms": 5.0, "queue_ms": 400.0, "seconds": 8.0, "rounds": 1}
    result = {**path, **rows(), **top}
    text = acp.as_text(result)
    assert "58.0 / 40.0" in text
    assert "fairness flow, streams [0, 0]: it broke" in text
    environment = {"commit": None, "cpu": "c", "cores": 2, "kernel": "6", "python": "3"}
    drawn = tmp_path / "acp.svg"
    acp.plot({**result, "environment": {**environment, "date": "2026-01-01T00:00:00Z"}}, drawn)
    assert drawn.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--seconds", "1"], "--seconds must be 2 to 120"),
        (["--rate", "0"], "--rate must be 1 to 500"),
        (["--parts", "queue,dance"], "'dance' is none of queue, transfers, tcp, halved"),
        (["--congestion", "bbr,"], "'' is none of a name"),
    ],
)
def test_a_path_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["acp", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
def test_a_node_in_the_laboratory_sends_to_another_one_and_is_asked(
    tmp_path: Path, no_leaks: None
) -> None:
    source = tmp_path / "source"
    write_random(source, 32 << 20)
    with wan(delay_ms=1, rate_bps=50e6) as path:
        sites = (Site(path.a, path.address_a), Site(path.b, path.address_b))
        with nodes(tmp_path, *sites) as (a, b):
            a.send(source, b, "copy")
            trips = RoundTrips()
            while b.received_bytes() < 1 << 20 or not trips.count:
                for link in a.links():
                    trips.add(link["streams"])
            assert trips.figures(0)["min_rtt_ms"] >= 2
            assert carried(path, [b.data_port, 1])[0] >= 1 << 20
            assert carried(path, [b.data_port, 1])[1] == 0
            with pytest.raises(BenchError, match="a node refused transfers"):
                a.send(tmp_path / "none", b, "none")
        assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
def test_a_node_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, no_leaks: None
) -> None:
    with wan(delay_ms=1, rate_bps=50e6) as path:
        site = Site(path.a, path.address_a, settings={"dwcp.amst.nonsense": "1"})
        with pytest.raises(BenchError, match="nonsense"), nodes(tmp_path, site):
            pass


@pytest.mark.skipif(obstacle() is not None, reason=obstacle() or "")
def test_acp_prints_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(acp_scenarios, "_SETTLE", 1.0)
    monkeypatch.setattr(acp_scenarios, "_LATER", 0.5)
    arguments = ["--parts", "queue,halved", "--seconds", "2", "--rate", "20"]
    assert entry.main(["acp", *arguments, "--congestion", "reno", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["acp"] for row in result["queue"]] == ["off", "on"]
    for row in result["queue"]:
        assert row["congestion_used"] == "reno"
        assert 0 < row["link_share"] < 1.1
        assert row["goodput_mbps"] > 0
        assert row["rtt_ratio"] >= 1
    assert [row["acp"] for row in result["halved"]] == ["off", "on"]
    assert all(row["added_ms_peak"] > 0 for row in result["halved"])
    assert set(result["rtt_ratio"]) == {"off", "on"}

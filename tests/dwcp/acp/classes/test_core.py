from __future__ import annotations

from typing import Any

import pytest

from novacron.dwcp.acp.classes.core import PathClass, Policy, accept, classify, confirm
from novacron.environment.path import PathMeasure


def measured(rtt_ms: float, **fields: Any) -> PathMeasure:
    values: dict[str, Any] = {
        "peer": "node",
        "rtt_us": rtt_ms * 1000,
        "min_rtt_us": rtt_ms * 1000,
        "jitter_us": 0.0,
        "loss": 0.0,
        "ecn": False,
        "ce_share": 0.0,
        "rate_bps": 0,
        "same_host": False,
        "rdma": False,
        "samples": 10,
        "at": 1.0,
        "segments": 1000,
        **fields,
    }
    return PathMeasure(**values)


ALLOWED = Policy(dctcp=True)
NEAR, METRO, FAR = measured(0.2), measured(3), measured(40)


@pytest.mark.parametrize(
    ("measure", "local", "policy", "name", "congestion"),
    [
        (None, True, Policy(), "same-host", "cubic"),
        (measured(0.1, same_host=True), False, ALLOWED, "same-host", "cubic"),
        (NEAR, False, Policy(), "datacenter", "cubic"),
        (NEAR, False, ALLOWED, "datacenter", "dctcp"),
        (NEAR, False, ALLOWED._replace(mode="internet"), "datacenter", "cubic"),
        (measured(0.2, loss=0.01), False, ALLOWED, "mixed", "bbr"),
        (METRO, False, ALLOWED._replace(mode="datacenter"), "mixed", "bbr"),
        (FAR, False, ALLOWED._replace(mode="datacenter"), "internet", "bbr"),
        (None, False, ALLOWED, "unmeasured", "bbr"),
        (None, False, ALLOWED._replace(mode="datacenter"), "unmeasured", "dctcp"),
        (None, False, Policy(mode="datacenter"), "unmeasured", "cubic"),
        (measured(0, samples=0), False, Policy(), "unmeasured", "bbr"),
        (FAR, False, Policy(permitted=frozenset({"cubic"})), "internet", "cubic"),
        (FAR, False, Policy(permitted=frozenset()), "internet", ""),
        (NEAR, False, Policy(setting="reno", dctcp=True), "datacenter", "reno"),
    ],
)
def test_each_kind_of_path_gets_what_suits_it(
    measure: PathMeasure | None, local: bool, policy: Policy, name: str, congestion: str
) -> None:
    found = classify(measure, local, policy)
    assert (found.name, found.congestion) == (name, congestion)
    assert found.why


def test_dctcp_is_never_chosen_for_a_path_of_a_millisecond_or_more() -> None:
    for tenths in range(10, 3000, 7):
        for mode in ("auto", "datacenter", "hybrid", "internet"):
            policy = Policy(dctcp=True, mode=mode)
            assert classify(measured(tenths / 10), False, policy).congestion != "dctcp"


def test_why_says_what_was_measured_and_which_key_holds() -> None:
    found = classify(measured(0.21, loss=0.0001), False, Policy())
    assert found.why == "round trip 0.21 ms, 0.01% lost; dwcp.acp.dctcp is off"
    refused = classify(FAR, False, Policy(permitted=frozenset({"cubic"})))
    assert refused.why == "round trip 40 ms, 0.00% lost; this process may not use bbr"


@pytest.mark.parametrize(
    ("ecn", "rtt_us", "known", "got", "why"),
    [
        (True, 200, False, "dctcp", ""),
        (True, 1500, True, "dctcp", ""),
        (False, 200, True, "cubic", "the other end did not agree on ECN"),
        (True, 20_300, False, "bbr", "no dctcp over a wide-area hop: the round trip is 20.3 ms"),
    ],
)
def test_a_connection_that_is_made_may_not_bear_dctcp(
    ecn: bool, rtt_us: float, known: bool, got: str, why: str
) -> None:
    found = confirm("dctcp", ecn=ecn, rtt_us=rtt_us, measured=known, policy=ALLOWED)
    assert found == (got, why)


def test_what_an_operator_names_is_not_second_guessed() -> None:
    named = Policy(setting="dctcp")
    assert confirm("dctcp", ecn=False, rtt_us=9e9, measured=False, policy=named) == ("dctcp", "")
    assert confirm("bbr", ecn=False, rtt_us=9e9, measured=False, policy=ALLOWED) == ("bbr", "")


DATACENTER = PathClass("datacenter", "cubic", "round trip 0.2 ms")
INTERNET = PathClass("internet", "bbr", "round trip 40 ms")


@pytest.mark.parametrize(
    ("asked", "own", "policy", "got", "says"),
    [
        ("", DATACENTER, Policy(), "cubic", ""),
        ("cubic", DATACENTER, Policy(), "cubic", ""),
        ("bbr", DATACENTER, Policy(), "bbr", ""),
        ("htcp", DATACENTER, Policy(), "cubic", ""),
        ("dctcp", DATACENTER, ALLOWED, "dctcp", ""),
        ("dctcp", DATACENTER, Policy(), "cubic", "dwcp.acp.dctcp is off"),
        ("dctcp", INTERNET, ALLOWED, "bbr", "no datacenter's path"),
        ("dctcp", DATACENTER, ALLOWED._replace(mode="internet"), "cubic", "no datacenter's path"),
        ("bbr", DATACENTER, Policy(permitted=frozenset({"cubic"})), "cubic", "may not use it"),
        ("dctcp", PathClass("internet", "reno", ""), Policy(setting="reno"), "reno", "says so"),
    ],
)
def test_the_answering_end_uses_what_was_asked_for_where_its_own_policy_permits(
    asked: str, own: PathClass, policy: Policy, got: str, says: str
) -> None:
    found, why = accept(asked, own, policy)
    assert found == got
    assert says in why
    assert bool(says) == bool(why)

"""A node under load, with one of its servers failing and coming back.

One node lives through all faults, one after the other, without a restart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from bench.backends import Backends
from bench.rest_load import Client, Load, Outcome, admin_token, slowest, statuses
from tests.chaos.faults import POSTGRESQL, REDIS, Fault
from tests.chaos.meter import Meter
from tests.chaos.nodes import start_node
from tests.integration.node_process import DEADLINE, NodeProcess

BROKEN_SECONDS = 2.5
"""Longer than the node needs to notice silence, several times a statement's own time."""
WORST_STALL = 0.05
"""Seconds; what the issue demands of the event loop under each fault. A machine of tests may take
its turn away for longer, so the loop without any fault is measured beside it."""
TURNS = 3
FROZEN = 9.0
"""Seconds of a call; its client gives up at ten."""
WRITE = "/api/v1/tokens"
WHOLE = frozenset({200, 201})
UNABLE = frozenset({503, 504})


class Loaded:
    """A running node, its load, and what is measured of it."""

    def __init__(self, node: NodeProcess, meter: Meter) -> None:
        self.node = node
        self.meter = meter
        ready = node.wait_ready()
        self.client = Client(ready["addresses"]["rest"], admin_token(node.data))

    def state(self) -> str:
        answer = self.client.call("GET", "/api/v1/status")
        return str(answer.document["state"]) if answer.status == 200 else ""

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < give_up, f"{what}\n{self.node.text()[-3000:]}"
            time.sleep(0.05)

    def wait_whole(self) -> None:
        self.wait(lambda: self.state() == "ready", "the node was not restored")


@pytest.fixture(scope="module")
def loaded(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    meter = Meter(tmp_path_factory.mktemp("meter") / "meter")
    limits = {"api": {"rate_limit": 1_000_000, "rate_burst": 1_000_000}}
    with start_node(backends, "under-load", meter=meter, **limits) as node:
        found = Loaded(node, meter)
        found.wait_whole()
        yield found
        # It has lived through everything, and still stops in order.
        node.send(15)
        assert node.wait_exit() == 0
    meter.close()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def check_answers(outcomes: list[Outcome], fault: Fault, *, writes_served: bool) -> None:
    found = statuses(outcomes)
    for path in ("/livez", "/readyz", "/api/v1/status", "/api/v1/health"):
        assert set(found[path]) == {200}, (fault.name, path, found[path])
    allowed = WHOLE if writes_served else WHOLE | UNABLE
    assert set(found[WRITE]) <= allowed, (fault.name, found[WRITE])
    for path, seconds in slowest(outcomes).items():
        assert seconds < FROZEN, (fault.name, path)


def broken_and_mended(
    backends: Backends, loaded: Loaded, fault: Fault, *, writes_served: bool
) -> tuple[Load, float, float]:
    """The load, and the loop's worst stalls without and with the fault."""
    with Load(loaded.client) as load:
        time.sleep(0.5)
        load.take()
        loaded.meter.reset()
        time.sleep(1.0)
        calm = loaded.meter.worst()
        check_answers(load.take(), fault, writes_served=True)
        loaded.meter.reset()
        fault.break_(backends)
        try:
            time.sleep(BROKEN_SECONDS)
        finally:
            fault.mend(backends)
        loaded.wait_whole()
        worst = loaded.meter.worst()
        time.sleep(0.5)
        outcomes = load.take()
    assert worst.steps > 0
    check_answers(outcomes, fault, writes_served=writes_served)
    return load, calm.step, worst.step


def check_stall(attempt: Callable[[], tuple[float, float]]) -> None:
    """A machine that others share is given up to three tries; a loop that really blocks fails all."""
    seen = []
    for _ in range(TURNS):
        calm, worst = attempt()
        seen.append((round(calm, 4), round(worst, 4)))
        if worst < max(WORST_STALL, calm):
            return
    raise AssertionError(f"the event loop stood still (without the fault, with it): {seen}")


@pytest.mark.parametrize("fault", POSTGRESQL, ids=lambda fault: fault.name)
def test_postgresql_fails_under_load_and_nothing_acknowledged_is_lost(
    backends: Backends, loaded: Loaded, fault: Fault
) -> None:
    before = descriptors(loaded.node.pid)

    def attempt() -> tuple[float, float]:
        load, calm, worst = broken_and_mended(backends, loaded, fault, writes_served=False)
        assert load.acknowledged
        kept = set(backends.postgresql.psql("SELECT id FROM api_token").split())
        assert set(load.acknowledged) <= kept
        return calm, worst

    check_stall(attempt)
    assert descriptors(loaded.node.pid) <= before + 16


@pytest.mark.parametrize("fault", REDIS, ids=lambda fault: fault.name)
def test_redis_fails_under_load_and_every_call_is_answered(
    backends: Backends, loaded: Loaded, fault: Fault
) -> None:
    before = descriptors(loaded.node.pid)

    def attempt() -> tuple[float, float]:
        _, calm, worst = broken_and_mended(backends, loaded, fault, writes_served=True)
        return calm, worst

    check_stall(attempt)
    assert descriptors(loaded.node.pid) <= before + 16

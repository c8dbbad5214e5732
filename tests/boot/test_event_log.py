from __future__ import annotations

import logging

import pytest

from novacron.boot.event_log import log_event
from tests.boot.fakes import QUICK, Broken, Criticality, Fake, Flaky, Stage, define, failing


async def test_a_boot_that_succeeds_leaves_a_trace_of_what_failed_in_it(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "novacron.boot")

    def listen(engine, event) -> None:
        log_event(event)
        if event.kind == "node_ready":
            engine.request_stop("the test")

    stage = Stage(
        [
            define(Fake("flaky", [], start=failing(1, Flaky))),
            define(Fake("broken", [], start=failing(9, Broken)), criticality=Criticality.WARNING),
            define(Fake("needy", []), ["broken"], criticality=Criticality.WARNING),
        ],
        QUICK,
        listen,
    )
    assert await stage.engine.run() == 0

    told = {(r.levelname, r.__dict__.get("component"), r.getMessage()) for r in caplog.records}
    assert ("WARNING", "flaky", "start failed, next attempt in 1.0 s: flaky failed") in told
    assert ("WARNING", "broken", "start failed: broken failed") in told
    assert ("WARNING", "needy", "not started: broken failed") in told
    assert ("INFO", None, "stopping: the test") in told

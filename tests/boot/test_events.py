from __future__ import annotations

import json

import pytest

from novacron.boot import events
from novacron.errors import CacheError, TransientError

ERROR = TransientError("cannot connect", why="refused", remedy="start it", key="cache.kind")

SAMPLES: list[events.Event] = [
    events.BootStarted("b1", 0.1, {"core": ["security"]}),
    events.PhaseStarted("core", 0.1, 20.1),
    events.PhaseFinished("core", 0.2, "ready"),
    events.ComponentEntered("cache", "core", 1, 0.1),
    events.ComponentReady("cache", 0.2, 0.1, False),
    events.ComponentRetry("cache", 1, 1.03, ERROR, 0.2),
    events.ComponentFailed("cache", 0.2, ERROR),
    events.ComponentSkipped("api", "database failed", 0.2),
    events.ComponentProgress("database", "migrating", 0.2),
    events.ComponentStopping("cache", 9.0),
    events.ComponentStopped("cache", 9.1, None),
    events.ComponentLost("cache", 5.0, ERROR),
    events.ComponentRestored("cache", 6.0, 1.0),
    events.CheckpointWritten("init_start", 0.1, 0.001),
    events.RollbackStarted("database failed", 0.3),
    events.UndoRan("database", "schema", 0.3, None),
    events.NodeReady("ready", 0.25, 0.25, [], {"rest": "127.0.0.1:1"}, "/d", None, ["w"]),
    events.BootFailed(0.3, {"what": "x"}, None, "/d/boot/reports/r.json"),
    events.NodeStopping("SIGTERM", 9.0),
    events.NodeStopped(9.2, 0),
]


def test_every_event_class_has_a_sample_and_a_kind_of_its_own() -> None:
    assert {type(sample) for sample in SAMPLES} == set(events.Event.__subclasses__())
    assert len({sample.kind for sample in SAMPLES}) == len(SAMPLES)


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.kind)
def test_an_event_is_json_and_carries_all_its_fields(event: events.Event) -> None:
    record = json.loads(json.dumps(event.as_json()))
    assert record["event"] == event.kind
    assert record["at"] == event.at
    assert set(type(event).__slots__) <= set(record)
    assert repr(event).startswith(type(event).__name__ + "(")


def test_an_event_takes_no_field_it_does_not_have() -> None:
    with pytest.raises(AttributeError):
        events.NodeStopped(1.0, 0).reason = "typo"  # type: ignore[attr-defined]


def test_one_of_our_errors_keeps_what_an_operator_needs() -> None:
    assert events.describe_error(ERROR) == {
        "error": "TransientError",
        "what": "cannot connect",
        "why": "refused",
        "remedy": "start it",
        "key": "cache.kind",
    }


@pytest.mark.parametrize(
    ("error", "what"),
    [(ValueError("bad"), "bad"), (KeyError(), "KeyError"), (CacheError("full"), "full")],
)
def test_a_foreign_error_is_named_by_its_text_or_its_class(error: Exception, what: str) -> None:
    assert events.describe_error(error)["what"] == what
    assert events.describe_error(error)["error"] == type(error).__name__

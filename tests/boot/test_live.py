from __future__ import annotations

from novacron.boot import events
from novacron.boot.live import Picture
from tests.boot.test_view import BOOT, ERROR


def picture_of(told: list[events.Event]) -> Picture:
    picture = Picture()
    for event in told:
        picture.apply(event)
    return picture


def words(picture: Picture, now: float, height: int = 30) -> list[str]:
    return [line for _, _, line in picture.lines(now, height)]


def test_before_anything_started_all_phases_wait() -> None:
    assert words(picture_of(BOOT[:1]), 0.3) == [
        "Booting, 0.3 s",
        "core: 2 components",
        "services: 1 component",
    ]


def test_the_phase_under_way_shows_its_components_and_what_they_do() -> None:
    assert words(picture_of(BOOT[:6]), 0.8) == [
        "Booting, 0.8 s",
        "core: 1 of 2 ready, 0.6 s",
        "  security  0.010 s",
        "  cache  again in 0.5 s  attempt 1 failed: cannot reach the cache",
        "services: 1 component",
    ]
    assert words(picture_of(BOOT[:8]), 1.8)[3] == "  cache  0.5 s  connecting"


def test_a_finished_phase_is_one_line() -> None:
    assert words(picture_of(BOOT), 2.5) == [
        "Booting, 2.5 s",
        "core: 2 of 2 ready, 2.1 s",
        "services: 1 component",
    ]


def test_on_a_low_terminal_those_at_work_or_in_trouble_come_first() -> None:
    names = [f"c{index}" for index in range(40)]
    told: list[events.Event] = [
        events.BootStarted("b", 0.0, {"core": names}),
        events.PhaseStarted("core", 0.0, 20.0),
        *[events.ComponentReady(name, 0.1, 0.1, False) for name in names[:20]],
        *[events.ComponentEntered(name, "core", 1, 0.1) for name in names[20:22]],
        events.ComponentFailed("c30", 0.2, ERROR),
    ]
    lines = words(picture_of(told), 1.0, height=8)
    assert len(lines) == 8
    assert lines[2] == "  c30  cannot reach the cache"
    assert lines[3:5] == ["  c20  0.9 s", "  c21  0.9 s"]
    assert lines[-1] == "    and 35 more"


def test_failures_skips_fallbacks_and_the_rollback_are_shown() -> None:
    told = [
        *BOOT[:5],
        events.ComponentFailed("security", 0.5, ERROR),
        events.ComponentSkipped("cache", "security failed", 0.5),
        events.PhaseFinished("core", 0.6, "failed"),
        events.RollbackStarted("security failed", 0.6),
        events.ComponentStopped("security", 0.7, None),
    ]
    picture = picture_of(told)
    assert picture.rows["cache"].state == "skipped"
    assert picture.rows["security"].state == "stopped"
    assert words(picture, 0.7)[0] == "Rolling back: security failed, 0.7 s"
    assert picture.lines(0.7, 30)[1][1] == "failed"


def test_events_about_components_it_never_heard_of_are_ignored() -> None:
    picture = picture_of([events.ComponentReady("ghost", 1.0, 0.1, False)])
    picture.apply(events.ComponentProgress("ghost", "x", 1.0))
    assert words(picture, 1.0) == ["Booting, 1.0 s"]

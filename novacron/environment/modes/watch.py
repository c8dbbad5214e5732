"""Keeps the modes of all paths and of the node, and tells of changes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import trio

from novacron.component import JsonObject
from novacron.config.schema import DwcpSettings
from novacron.environment.modes import metrics
from novacron.environment.modes.core import MODES
from novacron.environment.modes.track import (
    Mode,
    NodeTrack,
    PathMode,
    PathTrack,
    Rules,
    from_devices,
)
from novacron.environment.path import PathMeasure

logger = logging.getLogger("novacron.environment")

SWITCHES_KEPT: Final = 32


class ModeChanges:
    """Yields the mode as it is, then each other one. Who is slow is told of the newest only, so that
    nothing piles up; who iterates no more holds nothing back."""

    def __init__(self, watch: ModeWatch) -> None:
        self._watch = watch
        self._seen: tuple[str, bool] | None = None

    def __aiter__(self) -> ModeChanges:
        return self

    async def __anext__(self) -> Mode:
        while (mode := self._watch.mode) and (mode.name, mode.measured) == self._seen:
            await self._watch.changed.park()
        self._seen = mode.name, mode.measured
        return mode


class ModeWatch:
    """Made by the environment when something first asks for modes."""

    def __init__(self, settings: DwcpSettings) -> None:
        detection = settings.detection
        self._rules = Rules(detection.samples, detection.hysteresis, detection.cool_down)
        self._node = NodeTrack(self._rules, settings.mode, trio.current_time())
        self._paths: dict[str, PathTrack] = {}
        self._switches: deque[JsonObject] = deque(maxlen=SWITCHES_KEPT)
        self.changed = trio.lowlevel.ParkingLot()
        self._show_mode()

    @property
    def mode(self) -> Mode:
        return self._node.mode

    def know_devices(self, rdma: list[str] | None, fastest_bps: int | None) -> None:
        self._node.know_devices(*from_devices(rdma, fastest_bps))

    def observe(self, measure: PathMeasure, *, rdma: bool | None) -> None:
        track = self._paths.setdefault(measure.peer, PathTrack(self._rules))
        before = track.name
        if track.observe(measure, rdma=rdma, now=trio.current_time()):
            found = track.as_mode(measure)
            logger.info(
                "the path to %s is %s%s: %s",
                measure.peer,
                found.name,
                f", was {before}" if before else "",
                found.why,
                extra={"peer": measure.peer, "mode": found.name, "was": before},
            )
            self.review()
        metrics.show_path(measure)

    def forget(self, peer: str) -> None:
        if self._paths.pop(peer, None) is not None:
            metrics.hide_path(peer)
            self.review()

    def is_near(self, peer: str, newest_us: float) -> bool:
        track = self._paths.get(peer)
        return track is not None and track.is_near(newest_us)

    def path(self, peer: str) -> PathMode | None:
        track = self._paths.get(peer)
        return track.as_mode(track.measure) if track is not None and track.measure else None

    def paths(self) -> list[PathMode]:
        return [track.as_mode(track.measure) for track in self._paths.values() if track.measure]

    def review(self) -> None:
        """Decide anew; also without a new measure, since a cool-down may be over."""
        named: dict[str, str] = {
            peer: track.name
            for peer, track in self._paths.items()
            if track.name is not None and track.measure is not None and not track.measure.same_host
        }
        before = self.mode
        mode = self._node.review(named, trio.current_time())
        counts = list(named.values())
        for name in MODES:
            metrics.PATHS.set(counts.count(name), name)
        if mode is None:
            return
        self._show_mode()
        if mode.name != before.name:
            metrics.MODE_SWITCHES.inc(mode.name)
        self._switches.append(
            {
                "at": mode.since if mode.name != before.name else trio.current_time(),
                "mode": mode.name,
                "measured": mode.measured,
                "was": before.name,
                "was_measured": before.measured,
                "why": mode.why,
            }
        )
        logger.info(
            "the network mode is %s%s: %s",
            mode.name,
            "" if mode.measured else " (unmeasured)",
            mode.why,
            extra={
                "event": "mode_switched",
                "mode": mode.name,
                "measured": mode.measured,
                "forced": mode.forced,
                "was": before.name,
            },
        )
        self.changed.unpark_all()

    def as_json(self) -> JsonObject:
        """What ``/api/v1/mode`` answers; times as seconds ago."""
        now = trio.current_time()
        mode = self.mode
        return {
            "mode": mode.name,
            "measured": mode.measured,
            "forced": mode.forced,
            "why": mode.why,
            "seconds": round(now - mode.since, 3),
            "paths": [_path_as_json(path, now) for path in self.paths()],
            "switches": [
                {"seconds_ago": round(now - each["at"], 3), **_without_at(each)}
                for each in self._switches
            ],
        }

    def _show_mode(self) -> None:
        for name in MODES:
            metrics.MODE.set(float(name == self.mode.name), name)
        metrics.MODE_MEASURED.set(float(self.mode.measured))


def _without_at(entry: Mapping[str, Any]) -> JsonObject:
    return {name: value for name, value in entry.items() if name != "at"}


def _path_as_json(path: PathMode, now: float) -> JsonObject:
    """A number that nothing was measured for is null here: a zero would be taken for one."""
    measure, scores = path.measure, path.scores
    return {
        "peer": path.peer,
        "mode": path.name,
        "measured": path.name is not None,
        "why": path.why,
        "same_host": measure.same_host,
        "samples": measure.samples,
        "sampled_seconds_ago": round(now - measure.at, 3),
        "round_trip_seconds": _seconds(measure.rtt_us, measure.samples),
        "round_trip_minimum_seconds": _seconds(measure.min_rtt_us, measure.samples),
        "jitter_seconds": _seconds(measure.jitter_us, measure.samples > 1),
        "loss": measure.loss if measure.segments else None,
        "segments": measure.segments,
        "ecn": measure.ecn,
        "ce_share": measure.ce_share if measure.segments else None,
        "rate_bps": measure.rate_bps or None,
        "rate_spread": round(measure.rate_spread, 4) if measure.rates > 1 else None,
        "rdma": measure.rdma,
        "scores": None
        if scores is None or measure.same_host
        else {name: round(scores.of(name), 3) for name in MODES},
    }


def _seconds(microseconds: float, known: object) -> float | None:
    return round(microseconds / 1e6, 9) if known else None

"""From scores to modes that stay: hysteresis, a cool-down, and what many paths make of a node. Pure:
every call names the time, monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from novacron.environment.modes.core import (
    DATACENTER,
    HYBRID,
    Scores,
    explain,
    leader,
    score,
)
from novacron.environment.path import PathMeasure
from novacron.record import Record

AUTO: Final = "auto"
CONFIRMED: Final = 3
"""Rounds that another mode has to lead in before a path changes to it. While the way changes, half of
the samples are of the old one, and what they say together is true of neither."""
JUMP: Final = 2.0
JUMP_US: Final = 1_000.0
"""How far a single round trip has to be from the window's for a change of the way to be near: by this
factor, and by more than a scheduler may add."""
SHOWN: Final = 3
"""Peers named in a reason."""


class Rules(Record):
    samples: int = 10
    hysteresis: float = 0.1
    cool_down: float = 30.0
    """Seconds."""


class Mode(Record):
    """The network mode of a node."""

    name: str
    measured: bool
    """False: no path was measured, the name comes from the devices. See also :attr:`forced`."""
    forced: bool
    """By ``dwcp.mode``; then :attr:`measured` and :attr:`why` tell what there would be otherwise."""
    why: str
    since: float
    """Monotonic seconds (``trio.current_time()``)."""


class PathMode(Record):
    """The mode of one path."""

    peer: str
    name: str | None
    """None while it is unmeasured."""
    why: str
    since: float
    scores: Scores | None
    measure: PathMeasure


class Holder:
    """Holds a name and lets it go for another only when that has been offered *confirmed* times
    running and the held one is *cool_down* seconds old."""

    def __init__(self, cool_down: float, confirmed: int) -> None:
        self._cool_down = cool_down
        self._confirmed = confirmed
        self._rounds = 0
        self.name: str | None = None
        self.since = 0.0
        self.challenger: str | None = None

    @property
    def doubtful(self) -> bool:
        """Whether another name was offered, and not often enough yet."""
        return self.challenger is not None and self._rounds < self._confirmed

    def offer(self, name: str, now: float) -> bool:
        """Whether the held name changed. The first one is taken at once."""
        if self.name is None:
            self.name, self.since = name, now
            return True
        if name == self.name:
            self.challenger = None
            return False
        self._rounds = self._rounds + 1 if name == self.challenger else 1
        self.challenger = name
        if self._rounds < self._confirmed or now - self.since < self._cool_down:
            return False
        self.name, self.since, self.challenger = name, now, None
        return True


class PathTrack:
    """The mode of one path over time."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._holder = Holder(rules.cool_down, CONFIRMED)
        self.measure: PathMeasure | None = None
        self.scores: Scores | None = None

    def observe(self, measure: PathMeasure, *, rdma: bool | None, now: float) -> bool:
        """Take a new measure; whether the mode changed."""
        self.measure = measure
        if measure.same_host or measure.samples < self._rules.samples:
            return False
        self.scores = score(measure, rdma=rdma)
        return self._holder.offer(
            leader(self.scores, self._holder.name, self._rules.hysteresis), now
        )

    def is_near(self, newest_us: float) -> bool:
        """Whether the mode may be about to change: another one leads and is not confirmed, or the
        newest round trip is far from the rest."""
        measure = self.measure
        if measure is None or measure.same_host or self._holder.name is None:
            return False
        if self._holder.doubtful:
            return True
        low, high = sorted((newest_us, measure.min_rtt_us))
        return high > low * JUMP and high - low > JUMP_US

    @property
    def name(self) -> str | None:
        return self._holder.name

    def as_mode(self, measure: PathMeasure) -> PathMode:
        name = self._holder.name
        if measure.same_host:
            why = "it is on this host, which says nothing about the network"
        elif name is None or self.scores is None:
            why = f"{measure.samples} of {self._rules.samples} round trips so far"
        else:
            why = explain(self.scores, name)
        return PathMode(
            measure.peer,
            None if measure.same_host else name,
            why,
            self._holder.since,
            self.scores,
            measure,
        )


class NodeTrack:
    """The mode of the node over time.

    Args:
      wanted: ``dwcp.mode``; other than ``auto`` it is the mode, whatever is measured.
    """

    def __init__(self, rules: Rules, wanted: str, now: float) -> None:
        self._rules = rules
        self._wanted = wanted
        self._holder = Holder(rules.cool_down, 1)
        self._was_measured = False
        self._devices = HYBRID, "what devices there are is not known yet"
        self.mode = Mode(HYBRID, False, False, "", now)
        self.review({}, now)

    def know_devices(self, name: str, why: str) -> None:
        """What the devices alone would make the mode."""
        self._devices = name, why

    def review(self, paths: Mapping[str, str], now: float) -> Mode | None:
        """Decide.

        Args:
          paths: Mode by peer, of those that have one.

        Returns:
          The mode, where it is another one than before, in name or in being measured.
        """
        before = self.mode
        name, why = combine(paths) if paths else self._devices
        if not self._was_measured:
            # What nobody measured is nothing to hold on to.
            self._holder = Holder(self._rules.cool_down, 1)
            self._was_measured = bool(paths)
        self._holder.offer(name, now)
        held = self._holder.name or name
        measured = bool(paths)
        if not paths:
            why = f"no path to another host is measured; {why}"
        if held != name:
            measured = before.measured
            why = f"{why}: {name}; {held} until it is {self._rules.cool_down:g} s old"
        forced = self._wanted != AUTO
        if forced:
            found = held if measured else f"{held}, unmeasured"
            why = f"dwcp.mode says so; without it: {found} ({why})"
            held = self._wanted
        since = before.since if before.name == held else now
        self.mode = Mode(held, measured, forced, why, since)
        changed = (before.name, before.measured) != (held, measured)
        return self.mode if changed else None


def combine(paths: Mapping[str, str]) -> tuple[str, str]:
    """The mode of a node with *paths*, mode by peer, at least one; and why."""
    kinds = {mode: sorted(peer for peer in paths if paths[peer] == mode) for mode in paths.values()}
    if len(kinds) == 1:
        (name,) = kinds
        return name, f"{_paths(kinds[name])} {'is' if len(paths) == 1 else 'are'} {name}"
    return HYBRID, "; ".join(f"{_paths(kinds[name])}: {name}" for name in sorted(kinds))


def from_devices(rdma: Iterable[str] | None, fastest_bps: int | None) -> tuple[str, str]:
    """What the devices of a node suggest where nothing was measured; and why.

    Args:
      rdma: Its RDMA devices; None where they are not known.
      fastest_bps: Bits a second of its fastest physical link that is up; None where none tells.
    """
    devices = sorted(rdma or ())
    if devices:
        return DATACENTER, f"this node has RDMA: {', '.join(devices[:SHOWN])}"
    if fastest_bps is not None and fastest_bps >= 10 * 10**9:
        return DATACENTER, f"this node has a link of {fastest_bps / 1e9:.3g} Gbit/s"
    return HYBRID, "no device of this node tells of a datacenter"


def _paths(peers: list[str]) -> str:
    named = ", ".join(peer[:8] for peer in peers[:SHOWN])
    more = f" and {len(peers) - SHOWN} more" if len(peers) > SHOWN else ""
    return f"{len(peers)} {'path' if len(peers) == 1 else 'paths'} ({named}{more})"

"""How much a path looks like each network mode. Pure: measures in, scores out.

A mode has indicators, each with a bound. An indicator does not jump from "no" to "yes" at its bound but
rises over a tenth to either side (:data:`BAND`): a round trip of 50.1 ms is no other network than one
of 49.9 ms, and where the score jumps no hysteresis below the jump can keep the mode from flapping. What
was not measured takes no part: it counts neither for nor against.

``docs/guide/modes.md`` explains this to operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from novacron.environment.path import PathMeasure
from novacron.record import Record

DATACENTER: Final = "datacenter"
INTERNET: Final = "internet"
HYBRID: Final = "hybrid"
MODES: Final = (HYBRID, DATACENTER, INTERNET)
"""The first is taken where two score the same and none was there before: it decides for each path."""

BAND: Final = 0.1
"""How far to either side of its bound an indicator is in between."""
NEAR_US: Final = 1_000.0
FAR_US: Final = 50_000.0
FAST_BPS: Final = 8_500_000_000 // 8
"""Bytes a second. A line of 10 Gbit/s delivers 9.4 of them as payload at an MTU of 1500 bytes; there
the indicator has risen to its end."""
STEADY_JITTER: Final = 0.1
UNSTEADY_JITTER: Final = 0.2
"""Of the round trip."""
CLEAN_LOSS: Final = 0.00001
LOSSY: Final = 0.001
VARIABLE: Final = 0.3
"""Standard deviation of the delivery rates as a share of their mean. A sender that has the path for
itself stays well below; cross traffic or radio links bring it above."""

ROUND_TRIP_WEIGHT: Final = 5.0
"""The others count 1 each, and all of them together, four at most, do not outweigh it: distance is the
one thing that neither load nor the hosts' speed changes."""
SCHEDULING_US: Final = 250.0
"""Variation below this may be the hosts' schedulers and no network: their CPUs are shared with virtual
machines, and what is a tenth of a datacenter's round trip is one switch between two of those."""
SOME_LOST: Final = 3
"""One segment may get lost anywhere; from three on the share says something."""
RULE_OF_THREE: Final = 3.0
"""With none lost of n, the loss is below 3/n with 95 % confidence (Hanley and Lippman-Hand, JAMA 1983)."""
FEW_RATES: Final = 5
"""Delivery rates below which their spread says nothing."""


class Indicator(Record):
    name: str
    mode: str
    """Which mode it speaks for."""
    value: float | None
    """0: not at all, 1: fully, None: not measured."""
    weight: float
    text: str
    """For people: ``round trip 0.21 ms (below 1 ms)``."""


class Scores(Record):
    """From 0 to 1 each."""

    datacenter: float
    internet: float
    hybrid: float
    indicators: Sequence[Indicator]

    def of(self, mode: str) -> float:
        return float(getattr(self, mode))


def score(measure: PathMeasure, *, rdma: bool | None) -> Scores:
    """
    Args:
      measure: With at least one sample.
      rdma: Whether this node has an RDMA device; None where that is not known.
    """
    indicators = [*_for_datacenter(measure, rdma), *_for_internet(measure)]
    near = indicators[0].value or 0.0
    # A path with a wide-area round trip is no datacenter, whatever device this node has.
    datacenter = near * _mean(indicators, DATACENTER)
    internet = _mean(indicators, INTERNET)
    # What is neither is mixed, and what is both is as well.
    hybrid = min(1.0 - max(datacenter, internet) + min(datacenter, internet), 1.0)
    return Scores(datacenter, internet, hybrid, tuple(indicators))


def leader(scores: Scores, present: str | None, hysteresis: float) -> str:
    """The mode to be in: *present* unless another one scores better by *hysteresis* at least."""
    best = max(MODES, key=scores.of)
    if present is None or best == present:
        return best
    # A hair above it, or the difference of two rounded sums would decide where they are equal.
    better = scores.of(best) - scores.of(present) >= hysteresis - 1e-9
    return best if better and scores.of(best) > scores.of(present) else present


def explain(scores: Scores, mode: str) -> str:
    """Why the path is in *mode*, in a line: what speaks for it, then what against, then what is not
    known."""
    about = DATACENTER if mode == HYBRID and scores.datacenter >= scores.internet else mode
    about = INTERNET if about == HYBRID else about
    chosen = [each for each in scores.indicators if each.mode == about]
    groups = (
        ("", [each for each in chosen if each.value is not None and each.value >= 0.5]),
        ("not: ", [each for each in chosen if each.value is not None and each.value < 0.5]),
        ("not known: ", [each for each in chosen if each.value is None]),
    )
    said = "; ".join(
        title + ", ".join(each.text for each in found) for title, found in groups if found
    )
    return f"mixed ({said})" if mode == HYBRID else said


def _for_datacenter(measure: PathMeasure, rdma: bool | None) -> list[Indicator]:
    share = _jitter_share(measure)
    steady: float | None = None
    if share is not None:
        steady = _below(share, STEADY_JITTER)
        if steady < 1.0 and measure.jitter_us < SCHEDULING_US:
            steady = None
    fast = _above(measure.rate_bps, FAST_BPS) if measure.rates and measure.rate_bps else None
    return [
        Indicator(
            "round_trip",
            DATACENTER,
            _below(measure.min_rtt_us, NEAR_US),
            ROUND_TRIP_WEIGHT,
            f"round trip {_ms(measure.min_rtt_us)} (below {_ms(NEAR_US)})",
        ),
        Indicator(
            "rate", DATACENTER, fast, 1.0, f"rate{_rate(measure)} (a line of 10 Gbit/s or more)"
        ),
        Indicator(
            "rdma",
            DATACENTER,
            None if rdma is None else float(rdma),
            1.0,
            "an RDMA device in this node",
        ),
        Indicator(
            "jitter",
            DATACENTER,
            steady,
            1.0,
            f"jitter{_share(share)} of the round trip (below 10 %)",
        ),
        Indicator("loss", DATACENTER, _clean(measure), 1.0, f"{_loss(measure)} (below 0.001 %)"),
    ]


def _for_internet(measure: PathMeasure) -> list[Indicator]:
    share = _jitter_share(measure)
    unsteady: float | None = None
    if share is not None:
        unsteady = _above(share, UNSTEADY_JITTER) if measure.jitter_us >= SCHEDULING_US else 0.0
    variable = _above(measure.rate_spread, VARIABLE) if measure.rates >= FEW_RATES else None
    return [
        Indicator(
            "round_trip",
            INTERNET,
            _above(measure.min_rtt_us, FAR_US),
            ROUND_TRIP_WEIGHT,
            f"round trip {_ms(measure.min_rtt_us)} (above {_ms(FAR_US)})",
        ),
        Indicator("loss", INTERNET, _lossy(measure), 1.0, f"{_loss(measure)} (above 0.1 %)"),
        Indicator(
            "jitter",
            INTERNET,
            unsteady,
            1.0,
            f"jitter{_share(share)} of the round trip (above 20 %)",
        ),
        Indicator(
            "bandwidth",
            INTERNET,
            variable,
            1.0,
            "bandwidth that varies"
            + ("" if variable is None else f" by {100 * measure.rate_spread:.0f} %")
            + " (by more than 30 %)",
        ),
    ]


def _mean(indicators: Sequence[Indicator], mode: str) -> float:
    known = [each for each in indicators if each.mode == mode and each.value is not None]
    total = sum(each.weight for each in known)
    return sum((each.value or 0.0) * each.weight for each in known) / total if total else 0.0


def _above(value: float, bound: float) -> float:
    low, high = bound * (1 - BAND), bound * (1 + BAND)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _below(value: float, bound: float) -> float:
    return 1.0 - _above(value, bound)


def _jitter_share(measure: PathMeasure) -> float | None:
    if measure.samples < 2 or measure.rtt_us <= 0:
        return None
    return measure.jitter_us / measure.rtt_us


def _clean(measure: PathMeasure) -> float | None:
    """Few segments cannot show a small loss: none lost of a hundred is no proof of 0.001 %. But some
    lost of them is a proof of more."""
    value = _below(measure.loss, CLEAN_LOSS)
    if value <= 0.0 and _lost(measure) >= SOME_LOST:
        return 0.0
    return value if measure.segments >= RULE_OF_THREE / CLEAN_LOSS else None


def _lossy(measure: PathMeasure) -> float | None:
    value = _above(measure.loss, LOSSY)
    if value >= 1.0 and _lost(measure) >= SOME_LOST:
        return 1.0
    return value if measure.segments >= RULE_OF_THREE / LOSSY else None


def _lost(measure: PathMeasure) -> float:
    # Rounded: the share is a quotient, and 3 of 7 is not to become 2.9999.
    return round(measure.loss * measure.segments, 6)


def _ms(microseconds: float) -> str:
    milliseconds = microseconds / 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 0.995 else f"{milliseconds:.3g} ms"


def _rate(measure: PathMeasure) -> str:
    return f" {measure.rate_bps * 8 / 1e9:.3g} Gbit/s" if measure.rates else ""


def _share(share: float | None) -> str:
    return f" {100 * share:.0f} %" if share is not None else ""


def _loss(measure: PathMeasure) -> str:
    if not measure.segments:
        return "loss"
    return f"loss {100 * measure.loss:.3g} % of {measure.segments} segments"

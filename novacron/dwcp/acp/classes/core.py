"""What kind of path leads to a node, and which congestion control suits it.

DCTCP (RFC 8257) keeps queues shortest, and needs switches that mark early and both ends to take part;
beside other traffic, over a hop that does not mark, it fills the queue like Reno and yields to nobody as
CUBIC does. So it is for the datacenter alone, and for operators who know their switches. BBR is for
paths with loss and long round trips, CUBIC for the rest (ADR 0092).
"""

from __future__ import annotations

from typing import Final

from novacron.environment.path import PathMeasure
from novacron.record import Record

SAME_HOST: Final = "same-host"
DATACENTER: Final = "datacenter"
INTERNET: Final = "internet"
MIXED: Final = "mixed"
UNMEASURED: Final = "unmeasured"

NEAR_US: Final = 1_000.0
"""Microseconds of least round trip below which a path stays within a datacenter: light in fibre does
100 km and back in that time, and there is no switch to speak of on the way."""
FAR_US: Final = 10_000.0
"""From which on it is the internet's."""
LOSSY: Final = 0.001
"""Share of segments lost from which on a path is not a datacenter's."""

CUBIC: Final = "cubic"
BBR: Final = "bbr"
DCTCP: Final = "dctcp"
CHOICES: Final = (DCTCP, BBR, CUBIC)
"""What a node may ask another one to use; anything else is an operator's word, and holds for one end."""


class Policy(Record):
    """What an operator, and the kernel, allow."""

    setting: str = "auto"
    """``dwcp.amst.congestion``: the name of one overrides everything."""
    dctcp: bool = False
    """``dwcp.acp.dctcp``."""
    mode: str = "auto"
    """The network mode that holds for the path."""
    permitted: frozenset[str] = frozenset(CHOICES)
    """What this process may use, of :data:`CHOICES`."""


class PathClass(Record):
    name: str
    congestion: str
    """Wanted; empty: the kernel's own."""
    why: str


def classify(measure: PathMeasure | None, local: bool, policy: Policy) -> PathClass:
    """Args:
    measure: None where nothing was measured.
    local: The address is one of this host's own.
    """
    name, seen = _kind(measure, local)
    if policy.setting != "auto":
        return PathClass(name, policy.setting, f"{seen}; dwcp.amst.congestion says so")
    congestion, why = _suited(name, policy)
    return PathClass(name, congestion, f"{seen}; {why}" if why else seen)


def _kind(measure: PathMeasure | None, local: bool) -> tuple[str, str]:
    if local or (measure is not None and measure.same_host):
        return SAME_HOST, "on the same host"
    if measure is None or not measure.measured:
        return UNMEASURED, "the path was not measured yet"
    seen = f"round trip {milliseconds(measure.min_rtt_us)}"
    if measure.segments:
        seen += f", {measure.loss:.2%} lost"
    if measure.min_rtt_us >= FAR_US:
        return INTERNET, seen
    if measure.min_rtt_us < NEAR_US and measure.loss < LOSSY:
        return DATACENTER, seen
    return MIXED, seen


def _suited(name: str, policy: Policy) -> tuple[str, str]:
    if name == SAME_HOST:
        return _permitted(policy, CUBIC)
    if name == DATACENTER or (name == UNMEASURED and policy.mode == DATACENTER):
        if not policy.dctcp:
            return _permitted(policy, CUBIC, "dwcp.acp.dctcp is off")
        if policy.mode == INTERNET:
            return _permitted(policy, CUBIC, "no dctcp in mode internet")
        return _permitted(policy, DCTCP)
    return _permitted(policy, BBR)


def _permitted(policy: Policy, wanted: str, why: str = "") -> tuple[str, str]:
    for name in (wanted, CUBIC):
        if name in policy.permitted:
            return name, why
        reason = f"this process may not use {name}"
        why = f"{why}; {reason}" if why else reason
    return "", why


def confirm(
    wanted: str, *, ecn: bool, rtt_us: float, measured: bool, policy: Policy
) -> tuple[str, str]:
    """What a connection that is made gets instead of *wanted*, and why; *wanted* and nothing where it
    is what it should be. Only DCTCP depends on what the two ends agreed on.

    Args:
      rtt_us: The least that the connection itself measured; 0: none.
      measured: The path is known to be a datacenter's, which one round trip of a handshake on a busy
        host does not disprove.
    """
    if wanted != DCTCP or policy.setting != "auto":
        return wanted, ""
    if not ecn:
        return _permitted(policy, CUBIC, "the other end did not agree on ECN")
    if not measured and rtt_us >= NEAR_US:
        why = f"no dctcp over a wide-area hop: the round trip is {milliseconds(rtt_us)}"
        return _permitted(policy, BBR, why)
    return wanted, ""


def accept(asked: str, own: PathClass, policy: Policy) -> tuple[str, str]:
    """What the answering end uses on connections that it accepts, where the asking one uses *asked*
    (empty: unknown), and why it is not that."""
    if policy.setting != "auto":
        return own.congestion, "dwcp.amst.congestion says so" if own.congestion != asked else ""
    if asked not in CHOICES or asked == own.congestion:
        return own.congestion, ""
    if asked == DCTCP:
        if not policy.dctcp:
            return own.congestion, "asked for dctcp: dwcp.acp.dctcp is off"
        if own.name not in (DATACENTER, UNMEASURED) or policy.mode == INTERNET:
            return own.congestion, f"asked for dctcp: no datacenter's path ({own.why})"
    if asked not in policy.permitted:
        return own.congestion, f"asked for {asked}: this process may not use it"
    return asked, ""


def milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g} ms"

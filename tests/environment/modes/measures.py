"""Measures for tests: given ones, and any."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from novacron.environment.path import PathMeasure

PLAIN = PathMeasure(
    peer="peer-one",
    rtt_us=300.0,
    min_rtt_us=280.0,
    jitter_us=10.0,
    loss=0.0,
    ecn=False,
    ce_share=0.0,
    rate_bps=0,
    same_host=False,
    rdma=False,
    samples=10,
    at=0.0,
)


def measure(**changes: Any) -> PathMeasure:
    """A clean path of 0.3 ms whose loss and rate nobody measured, but for *changes*. ``rtt_us`` is
    the minimum as well, unless that is given."""
    if "rtt_us" in changes:
        changes.setdefault("min_rtt_us", changes["rtt_us"])
    return PLAIN._replace(**changes)


NEAR = measure()
FAR = measure(rtt_us=80_000.0, jitter_us=500.0)
BETWEEN = measure(rtt_us=20_000.0, jitter_us=500.0)


@st.composite
def measures(draw: st.DrawFn, **fixed: Any) -> PathMeasure:
    minimum = draw(st.floats(1, 1e6))
    rtt = minimum * draw(st.floats(1, 5))
    segments = draw(st.integers(0, 2_000_000))
    lost = draw(st.integers(0, segments)) if draw(st.booleans()) else draw(st.integers(0, 3))
    rates = draw(st.integers(0, 60))
    found: dict[str, Any] = {
        "rtt_us": rtt,
        "min_rtt_us": minimum,
        "jitter_us": rtt * draw(st.floats(0, 2)),
        "segments": segments,
        "loss": min(lost / segments, 1.0) if segments else 0.0,
        "rates": rates,
        "rate_bps": draw(st.integers(1, 10**11)) if rates else 0,
        "rate_spread": draw(st.floats(0, 2)) if rates > 1 else 0.0,
        "samples": draw(st.integers(10, 100)),
    }
    return PLAIN._replace(**{**found, **fixed})


devices = st.sampled_from([None, False, True])

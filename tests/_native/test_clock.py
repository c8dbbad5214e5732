from __future__ import annotations

from novacron._native import clock


def test_the_state_of_the_clock_is_read() -> None:
    state = clock.read()
    assert isinstance(state.synchronised, bool)
    assert state.maximum_error_us >= 0
    assert state.estimated_error_us >= 0
    # A clock in use is disciplined by less than half a second at a time (MAXPHASE).
    assert abs(state.offset_ns) <= 500_000_000

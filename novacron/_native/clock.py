"""The kernel's clock discipline."""

from __future__ import annotations

from novacron._native.ffi import native
from novacron.record import Record


class Clock(Record):
    synchronised: bool
    """A time service disciplines the clock and told the kernel so."""
    offset_ns: int
    """What is still being corrected."""
    estimated_error_us: int
    maximum_error_us: int
    """The error's bound; 16 s is the kernel's way to say that it does not know."""
    tai_offset: int
    """TAI minus UTC in seconds; 0 where nobody told the kernel."""


def read() -> Clock:
    """Read, never change, the clock's state (``adjtimex(2)`` without mode bits).

    Raises:
      NativeError: the module is missing, or the kernel refused (a seccomp filter does that).
    """
    loaded = native()
    error = loaded.new_error()
    clock = loaded.ffi.new("struct nc_clock *")
    code = loaded.lib.nc_clock_read(clock, error)
    loaded.check(code, error, "cannot read the kernel's clock state")
    return Clock(
        bool(clock.synchronised),
        clock.offset_ns,
        clock.estimated_us,
        clock.maximum_us,
        clock.tai_offset,
    )

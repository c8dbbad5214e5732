"""CRC-32 of IEEE 802.3: zlib's, by the fastest instructions the CPU has."""

from __future__ import annotations

from novacron._native.ffi import Bytes, native


def crc32(data: Bytes, crc: int = 0) -> int:
    """Continue *crc* over *data*, as :func:`zlib.crc32` does.

    Raises:
      NativeUnavailableError: there is no compiled module; so for all functions here.
    """
    loaded = native()
    with loaded.ffi.from_buffer(data) as pointer:
        return loaded.lib.nc_crc32(crc, pointer, len(pointer))


def crc32_of_zeros(size: int, crc: int = 0) -> int:
    """Continue *crc* over *size* zero bytes that need not be there; takes microseconds."""
    return native().lib.nc_crc32_zeros(crc, size)


def kernel() -> str:
    """``vpclmul``, ``pclmul`` or ``tables``: what computes on this CPU."""
    loaded = native()
    return loaded.text(loaded.lib.nc_crc32_kernel())

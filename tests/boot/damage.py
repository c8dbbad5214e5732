"""Every way a file is damaged here: cut short, zeroed, one bit flipped."""

from __future__ import annotations

from collections.abc import Iterator


def truncations(content: bytes) -> Iterator[bytes]:
    """Cut after every byte but the last."""
    for length in range(len(content)):
        yield content[:length]


def zeroings(content: bytes) -> Iterator[bytes]:
    """Zeros from every byte on, as after a power cut, and zeros up to every byte."""
    for length in range(len(content)):
        yield content[:length] + bytes(len(content) - length)
        yield bytes(length + 1) + content[length + 1 :]


def bit_flips(content: bytes) -> Iterator[bytes]:
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            yield bytes(damaged)


def damages(content: bytes) -> Iterator[bytes]:
    yield from truncations(content)
    yield from zeroings(content)
    yield from bit_flips(content)

"""Codecs of chunks: which there are. Typed access to ``native/include/nc_codec.h``."""

from __future__ import annotations

from typing import Final

from novacron._native.ffi import native

CODECS: Final = ("raw", "lz4", "zstd")
"""By their number on the wire."""


def available() -> tuple[str, ...]:
    """Names from :data:`CODECS` whose library is there; ``raw`` always.

    Raises:
      NativeUnavailableError: the extension cannot be used.
    """
    found = native().lib.nc_codec_available()
    return tuple(name for number, name in enumerate(CODECS) if found >> number & 1)


def version(codec: str) -> str:
    """Of the codec's library; empty where it is missing or none is needed."""
    loaded = native()
    return loaded.text(loaded.lib.nc_codec_version(CODECS.index(codec)))


def missing(codec: str) -> str:
    """Why the codec's library cannot be used; empty where it can."""
    loaded = native()
    return loaded.text(loaded.lib.nc_codec_missing(CODECS.index(codec)))

"""HDE's codecs, differences, zeros and blocks, as the engine uses them.

The engine encodes in C. This is for whoever has to know beforehand what it can, for what is moved
by other ways, and for tests. Nothing here waits for anything but the processor; cffi releases the
interpreter's lock during each call, so that a worker thread may do it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from novacron._native.ffi import Bytes, Native, NativeInvalidError, Pointer, native
from novacron.record import Record

CODECS = ("raw", "lz4", "zstd")
"""By their numbers in a frame, ``enum nc_codec_id``."""

MAX_CONTENT_BYTES = 4 * 1024 * 1024
"""The largest chunk: what one call takes."""

LEVEL_MIN, LEVEL_MAX = -7, 19
"""Of zstd."""


def available() -> tuple[str, ...]:
    """The codecs whose libraries are on this machine; ``raw`` always.

    Raises:
      NativeUnavailableError: there is no compiled module; so for all functions here.
    """
    bits = native().lib.nc_codec_available()
    return tuple(name for number, name in enumerate(CODECS) if bits >> number & 1)


def version(codec: str) -> str:
    """``1.5.4``; empty where the library is missing, and for ``raw``.

    Raises:
      NativeInvalidError: there is no such codec.
    """
    loaded = native()
    return loaded.text(loaded.lib.nc_codec_version(_number(codec)))


def missing(codec: str) -> str:
    """Why the library of *codec* cannot be used; empty where it can, and for ``raw``.

    Raises:
      NativeInvalidError: there is no such codec.
    """
    loaded = native()
    return loaded.text(loaded.lib.nc_codec_missing(_number(codec)))


def load(codec: str, library: str | None = None) -> None:
    """Find the library of *codec*; everything else here does it as well.

    Args:
      codec: One of :data:`CODECS`.
      library: File or soname instead of ``libzstd.so.1`` or ``liblz4.so.1``; without effect once one
        was loaded.

    Raises:
      NativeUnavailableError: it is not there, or lacks a function.
      NativeInvalidError: there is no such codec.
    """
    loaded = native()
    error = loaded.new_error()
    soname = loaded.ffi.NULL if library is None else library.encode()
    code = loaded.lib.nc_codec_load(_number(codec), soname, error)
    loaded.check(code, error, f"there is no usable {codec} here")


class Codec:
    """The contexts of one thread at a time, reused from call to call; close it, or use it in a ``with``.

    Raises:
      NativeError: no compiled module, or no memory.
    """

    def __init__(self) -> None:
        loaded = native()
        error = loaded.new_error()
        handle = loaded.ffi.new("struct nc_codec **")
        loaded.check(loaded.lib.nc_codec_open(handle, error), error, "cannot open a codec")
        self._native: Native = loaded
        self._codec: Pointer = handle[0]

    def close(self) -> None:
        """Free the contexts. Harmless when repeated."""
        self._native.lib.nc_codec_close(self._codec)
        self._codec = self._native.ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def memory(self) -> int:
        """Bytes that the contexts hold now.

        Raises:
          NativeInvalidError: it is closed.
        """
        return self._native.lib.nc_codec_memory(self._open())

    def encode(
        self, codec: str, content: Bytes, *, level: int = 3, capacity: int | None = None
    ) -> bytes | None:
        """*content* encoded, or None where that takes more than *capacity* bytes.

        Args:
          codec: One of :data:`CODECS`.
          content: 1 byte to :data:`MAX_CONTENT_BYTES`.
          level: Of zstd :data:`LEVEL_MIN` to :data:`LEVEL_MAX`; of lz4 its acceleration,
            1 to :data:`LEVEL_MAX`: more is faster and coarser.
          capacity: By default one byte less than *content*: what does not get smaller is sent raw.

        Raises:
          NativeUnavailableError: the library is not there.
          NativeInvalidError: no such codec or level, no such size, or closed.
        """
        ffi = self._native.ffi
        error = self._native.new_error()
        if capacity is None:
            capacity = max(len(content) - 1, 0)
        out = bytearray(capacity)
        size = ffi.new("size_t *")
        with ffi.from_buffer(content) as source, ffi.from_buffer(out) as into:
            code = self._native.lib.nc_codec_encode(
                *(self._open(), _number(codec), level, source, len(source)),
                *(into, capacity, size, error),
            )
        self._native.check(code, error, f"cannot encode {len(content)} bytes with {codec}")
        return bytes(memoryview(out)[: size[0]]) if size[0] else None

    def decode(self, codec: str, coded: Bytes, size: int) -> bytearray:
        """The *size* bytes that were encoded. Never makes more of them, whatever *coded* says.

        Raises:
          NativeIntegrityError: *coded* is not what *size* bytes are encoded to.
          NativeUnavailableError: the library is not there.
          NativeInvalidError: no such codec or size, or closed.
        """
        if not 1 <= size <= MAX_CONTENT_BYTES:
            raise NativeInvalidError(f"a chunk has 1 to {MAX_CONTENT_BYTES} bytes, not {size}")
        ffi = self._native.ffi
        error = self._native.new_error()
        content = bytearray(size)
        with ffi.from_buffer(coded) as source, ffi.from_buffer(content) as into:
            code = self._native.lib.nc_codec_decode(
                self._open(), _number(codec), source, len(source), into, size, error
            )
        self._native.check(code, error, f"cannot decode {len(coded)} bytes with {codec}")
        return content

    def _open(self) -> Pointer:
        if not self._codec:
            raise NativeInvalidError("the codec is closed")
        return self._codec


def delta(content: Bytes, base: Bytes, *, capacity: int | None = None) -> bytes | None:
    """What makes *content* from *base*, or None where that takes more than *capacity* bytes.

    Args:
      content: At least one byte.
      base: As many; what the other side has.
      capacity: By default what always suffices, a little more than *content*.

    Raises:
      NativeInvalidError: the sizes differ, or there is nothing.
    """
    loaded = native()
    with (
        loaded.ffi.from_buffer(content) as from_content,
        loaded.ffi.from_buffer(base) as from_base,
    ):
        size = len(from_content)
        if len(from_base) != size or size == 0:
            raise NativeInvalidError(
                f"a difference is of as many bytes: not of {size} from {len(from_base)}"
            )
        if capacity is None:
            capacity = size + loaded.lib.NC_DELTA_SPARE
        out = bytearray(capacity)
        with loaded.ffi.from_buffer(out) as into:
            made = loaded.lib.nc_delta_encode(from_content, from_base, size, into, capacity)
    return bytes(memoryview(out)[:made]) if made else None


def undelta(difference: Bytes, base: Bytes) -> bytearray:
    """What :func:`delta` was given as content.

    Raises:
      NativeIntegrityError: *difference* is none of a block of that size.
    """
    content = bytearray(len(base))
    _apply(difference, base, content)
    return content


def undelta_in_place(difference: Bytes, base: bytearray | memoryview) -> None:
    """The same where *base* lies.

    Raises:
      NativeIntegrityError: *difference* is none of a block of that size; *base* is what it was.
    """
    _apply(difference, base, base)


def _apply(difference: Bytes, base: Bytes, content: bytearray | memoryview) -> None:
    loaded = native()
    error = loaded.new_error()
    with (
        loaded.ffi.from_buffer(difference) as source,
        loaded.ffi.from_buffer(base) as from_base,
        loaded.ffi.from_buffer(content, require_writable=True) as into,
    ):
        code = loaded.lib.nc_delta_decode(
            source, len(source), from_base, into, len(from_base), error
        )
    loaded.check(code, error, f"cannot apply a difference of {len(difference)} bytes")


def is_zero(data: Bytes) -> bool:
    """Whether there is no other byte in *data*."""
    loaded = native()
    with loaded.ffi.from_buffer(data) as pointer:
        return loaded.lib.nc_is_zero(pointer, len(pointer))


class BlockSizes(Record):
    """Bytes of the blocks a file is cut into; see ``native/include/nc_cdc.h`` for what is possible.
    Two nodes find the same blocks with the same sizes only."""

    minimum: int
    average: int
    maximum: int


def block_ends(sizes: BlockSizes, data: Bytes, *, last: bool = True) -> list[int]:
    """Where the blocks end that begin at the start of *data*, by FastCDC.

    Args:
      sizes: Of the blocks.
      data: From where a block begins.
      last: Whether nothing follows *data*. If something does, an end that depends on it is not in the
        list: what is behind the last end is to be given again, with more behind it. Of at least
        ``sizes.maximum`` bytes there is always one.

    Raises:
      NativeInvalidError: there are no blocks of such sizes.
    """
    loaded = native()
    error = loaded.new_error()
    for size in sizes:
        if not 0 <= size < 2**32:
            raise NativeInvalidError(f"no block has {size} bytes")
    cdc = loaded.ffi.new("struct nc_cdc *", sizes._asdict())
    loaded.check(loaded.lib.nc_cdc_check(cdc, error), error, "cannot cut into such blocks")
    # The shortest block but the last is longer than the minimum.
    most = len(data) // sizes.minimum + 1
    ends = loaded.ffi.new("size_t[]", most)
    with loaded.ffi.from_buffer(data) as pointer:
        count = loaded.lib.nc_cdc_ends(cdc, pointer, len(pointer), last, ends, most)
    return list(loaded.ffi.unpack(ends, count))


def _number(codec: str) -> int:
    try:
        return CODECS.index(codec)
    except ValueError:
        raise NativeInvalidError(
            f"there is no codec {codec!r}", remedy=f"choose one of {', '.join(CODECS)}"
        ) from None

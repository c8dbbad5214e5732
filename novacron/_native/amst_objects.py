"""What moves on a link of the AMST engine, and how it is encoded."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final

from novacron._native.ffi import Native, Pointer
from novacron.record import Record


class ObjectInfo(Record):
    done_bytes: int
    moved_bytes: int
    zero_bytes: int
    resent_bytes: int
    done_chunks: int
    chunks: int


class CodingOptions(Record):
    """Of ``struct nc_amst_coding``, in its order."""

    policy: int = 0
    """0 off, 1 adaptive, 2 fixed."""
    codec: int = 0
    level: int = 0
    level_min: int = 0
    level_max: int = 0


class BaseOptions(Record):
    """What the receiver holds already: in a file, in memory, or, for a source alone, the source
    itself in some ranges."""

    id: int
    fd: int | None = None
    memory: Any = None
    held: Sequence[tuple[int, int]] = ()
    """Offset and size of each, in order, apart."""


class CodingChange(Record):
    at_ns: int
    before: int
    after: int
    why: int
    content_class: int
    link_bps: int
    encode_bps: int
    ratio: float


class CodingInfo(Record):
    """``struct nc_amst_coding_info``; what is by codec or stage is in their order."""

    zero_chunks: int
    zero_bytes: int
    delta_chunks: int
    delta_bytes: int
    delta_wire_bytes: int
    refused_bases: int
    budget_chunks: int
    chunks: tuple[int, ...]
    bytes: tuple[int, ...]
    wire_bytes: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    change_count: int
    changes: tuple[CodingChange, ...]
    """The last of them, oldest first."""


NOT_CODED: Final = CodingOptions()


class ObjectHandle:
    """An object or byte stream. Free it after ``object_ended``; the memory it works on is kept
    alive until then."""

    def __init__(self, loaded: Native, pointer: Pointer, keep: Any) -> None:
        self._native = loaded
        self._pointer = pointer
        self._keep = keep

    def pause(self, paused: bool) -> None:
        self._native.lib.nc_amst_object_pause(self._pointer, paused)

    def limit(self, bytes_per_second: int) -> None:
        self._native.lib.nc_amst_object_limit(self._pointer, bytes_per_second)

    def prioritise(self, priority: int) -> None:
        self._native.lib.nc_amst_object_priority(self._pointer, priority)

    def abort(self) -> None:
        self._native.lib.nc_amst_object_abort(self._pointer)

    def free(self) -> None:
        pointer, self._pointer = self._pointer, self._native.ffi.NULL
        self._native.lib.nc_amst_object_free(pointer)
        self._keep = None

    def info(self) -> ObjectInfo:
        info = self._native.ffi.new("struct nc_amst_object_info *")
        self._native.lib.nc_amst_object_info(self._pointer, info)
        return ObjectInfo(*(getattr(info, name) for name in ObjectInfo._fields))

    def coding(self) -> CodingInfo:
        info = self._native.ffi.new("struct nc_amst_coding_info *")
        self._native.lib.nc_amst_object_coding(self._pointer, info)
        kept = min(info.change_count, len(info.changes))
        changes = (
            info.changes[number % len(info.changes)]
            for number in range(info.change_count - kept, info.change_count)
        )
        fields: dict[str, Any] = {name: getattr(info, name) for name in _CODING_FIELDS}
        lists: dict[str, Any] = {name: tuple(getattr(info, name)) for name in _CODING_LISTS}
        return CodingInfo(
            **fields,
            **lists,
            changes=tuple(
                CodingChange(
                    c.at_ns,
                    getattr(c, "from"),
                    c.to,
                    c.why,
                    c.content_class,
                    c.link_bps,
                    c.encode_bps,
                    c.ratio,
                )
                for c in changes
            ),
        )

    def bitmap(self, chunks: int) -> bytes:
        loaded = self._native
        error = loaded.new_error()
        size = -(-chunks // 8)
        bits = loaded.ffi.new("uint8_t[]", max(size, 1))
        code = loaded.lib.nc_amst_object_bitmap(self._pointer, bits, size, error)
        loaded.check(code, error, "the chunks cannot be told")
        return bytes(loaded.ffi.buffer(bits, size))

    def leaves(self, first: int, count: int) -> array[int]:
        loaded = self._native
        error = loaded.new_error()
        found = array("I", bytes(4 * count))
        code = loaded.lib.nc_amst_object_leaves(
            self._pointer, first, count, loaded.ffi.from_buffer("uint32_t[]", found), error
        )
        loaded.check(code, error, "the checksums cannot be told")
        return found


_CODING_FIELDS = (
    "zero_chunks",
    "zero_bytes",
    "delta_chunks",
    "delta_bytes",
    "delta_wire_bytes",
    "refused_bases",
    "budget_chunks",
    "change_count",
)
_CODING_LISTS = ("chunks", "bytes", "wire_bytes", "cpu_ns")

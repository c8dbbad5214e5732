"""The format of a backup file, version 1.

    8 bytes    MAGIC
    u16        format version
    u16        reserved, 0
    u32        length of the header
    header     MessagePack: see :class:`Header`
    frames     each a u32 length, not 0, and one Zstandard frame that states its content's size:
               MessagePack ``[index of the table in the header, [row, …]]``, at most MAX_ITEMS rows
    u32        0
    32 bytes   SHA-256 of everything before

Integers are big-endian. A row is an array of as many values as its table has columns: nil, integer
of 64 bits, float of 64 bits, string (UTF-8) or binary. Tables come in the header's order.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from novacron.database.copies.tables import KINDS, Column, Owner, Table
from novacron.record import Record
from novacron.units import MIB

MAGIC: Final = b"NCBACKUP"
VERSION: Final = 1
PREFIX: Final = struct.Struct(">8sHHI")
LENGTH: Final = struct.Struct(">I")
DIGEST_BYTES: Final = 32

MAX_HEADER: Final = 4 * MIB
"""Some ten thousand columns."""

MAX_CONTENT: Final = 64 * MIB
"""Bytes of one frame's content, which a reader holds in memory. One row must fit; the largest value
that a node keeps is far below."""

MAX_ITEMS: Final = 4096
"""Rows in a frame, columns in a table, tables: what one array may announce. MessagePack's reader
makes room for what is announced, at up to 1,024 levels of arrays in arrays: 32 MiB at worst."""

BATCH_BYTES: Final = MIB // 4
"""Content of a frame as it is written, unless one row is more: enough for Zstandard to find what
repeats, and small beside what a process takes anyway."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
"""What both engines take for an identifier of one's own; PostgreSQL cuts longer ones."""

_DIGITS: Final = re.compile(r"[0-9]{1,8}")
_OWNERS: Final = ("node", "cluster")
_ENGINES: Final = ("sqlite", "postgresql")


class Header(Record):
    version: str
    """Of the NovaCron that wrote it."""
    revision: str
    engine: str
    owner: Owner | None
    created: float
    """Seconds since the epoch."""
    tables: tuple[Table, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


def encode_header(header: Header) -> bytes:
    """Prefix and header, as the file begins."""
    document = {
        "novacron": header.version,
        "revision": header.revision,
        "engine": header.engine,
        "owner": None if header.owner is None else [header.owner.kind, header.owner.id],
        "created": header.created,
        "tables": [
            [table.name, [[column.name, column.kind] for column in table.columns], table.rows]
            for table in header.tables
        ],
    }
    packed: bytes = msgpack.packb(document)
    return PREFIX.pack(MAGIC, VERSION, 0, len(packed)) + packed


def decode_header(packed: bytes) -> Header:
    """Read and check the header's own bytes.

    Raises:
      ValueError: with the reason, fit for a message.
    """
    try:
        document = msgpack.unpackb(packed, max_array_len=MAX_ITEMS, max_map_len=32, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError("its header cannot be read") from error
    if not isinstance(document, dict):
        raise ValueError("its header is no map")
    revision = _text(document, "revision")
    if not _DIGITS.fullmatch(revision):
        raise ValueError("its header has no revision")
    engine = _text(document, "engine")
    if engine not in _ENGINES:
        raise ValueError("its header names an unknown engine")
    created = document.get("created")
    if not isinstance(created, float) or not 0 <= created < 1e11:
        raise ValueError("its header has no time")
    return Header(
        _text(document, "novacron"),
        revision,
        engine,
        _owner(document.get("owner")),
        created,
        _tables(document.get("tables")),
    )


def _text(document: dict[Any, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError(f"its header has no “{name}”")
    return value


def _owner(value: Any) -> Owner | None:
    match value:
        case None:
            return None
        case [str(kind), str(id)] if kind in _OWNERS and len(id) <= 200:
            return Owner(kind, id)
    raise ValueError("its header has no readable owner")


def _tables(value: Any) -> tuple[Table, ...]:
    if not isinstance(value, list):
        raise ValueError("its header has no tables")
    tables = []
    for entry in value:
        match entry:
            case [str(name), list(columns), int(rows)] if (
                _NAME.fullmatch(name) and type(rows) is int and rows >= 0 and columns
            ):
                tables.append(Table(name, tuple(map(_column, columns)), rows))
            case _:
                raise ValueError("its header has a table that cannot be")
    names = [table.name for table in tables]
    if len(set(names)) != len(names):
        raise ValueError("its header names a table twice")
    for table in tables:
        columns = [column.name for column in table.columns]
        if len(set(columns)) != len(columns):
            raise ValueError("its header names a column twice")
    return tuple(tables)


def _column(value: Any) -> Column:
    match value:
        case [str(name), str(kind)] if _NAME.fullmatch(name) and kind in KINDS:
            return Column(name, kind)
    raise ValueError("its header has a column that cannot be")

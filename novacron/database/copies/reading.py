"""Reads a backup file, which may be anything: nothing in it is believed before it was checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import msgpack  # type: ignore[import-untyped]

from novacron.database.copies.tables import BackupInvalidError, Owner, Report, Row, Table
from novacron.database.copies.wire import (
    DIGEST_BYTES,
    LENGTH,
    MAGIC,
    MAX_CONTENT,
    MAX_HEADER,
    MAX_ITEMS,
    PREFIX,
    VERSION,
    Header,
    decode_header,
)
from novacron.database.store import DatabaseUnavailableError

_INTEGERS: Final = range(-(2**63), 2**63)


class BackupFile:
    """An open backup file as a :class:`~novacron.database.copies.tables.Snapshot`.

    :meth:`verify` reads it to its end; :attr:`tables` are to be used only after that. The file
    stays open in between, so that what was verified is what is read.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the header.

        Raises:
          BackupInvalidError: it is no backup, or one of a later format.
          DatabaseUnavailableError: it cannot be read.
        """
        self.path = path
        self.place = str(path)
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._hash = hashlib.sha256()
            self.header = self._read_header()
        except OSError as error:
            self._file.close()
            raise unreadable(path, error) from error
        except BaseException:
            self._file.close()
            raise
        self.engine = self.header.engine
        self.revision = self.header.revision
        self.owner: Owner | None = self.header.owner
        self.tables = self.header.tables
        self.sha256 = ""
        """Set by :meth:`verify`."""
        self._frames: Iterator[tuple[int, list[Row]]] | None = None
        self._held: tuple[int, list[Row]] | None = None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def verify(self, report: Report) -> None:
        """Read everything: every row is well-formed, the tables have the rows that the header says,
        and the checksum at the end fits.

        Raises:
          BackupInvalidError: with the first thing that is wrong.
        """
        done = 0
        for _index, rows in self._checked_frames():
            done += len(rows)
            report("checking the backup", done, self.header.rows, self._file.tell())

    def rows(self, table: Table) -> Iterator[Row]:
        """As a snapshot's. What is read is checked again, and the last table's end with it."""
        index = self.tables.index(table)
        if index == 0:
            self._frames, self._held = self._checked_frames(), None
        frames = self._frames
        assert frames is not None, "tables are read in their order"
        while True:
            held = self._held or next(frames, None)
            self._held = held
            if held is None or held[0] != index:
                return
            self._held = None
            yield from held[1]

    # --- Parts -----------------------------------------------------------------------------------

    def _read_header(self) -> Header:
        prefix = self._file.read(PREFIX.size)
        if not prefix.startswith(MAGIC):
            raise self._invalid("it does not begin as a backup does")
        if len(prefix) < PREFIX.size:
            raise self._cut()
        _magic, version, reserved, length = PREFIX.unpack(prefix)
        if version != VERSION:
            raise BackupInvalidError(
                f"the backup {self.path} cannot be read",
                why=f"its format is version {version}, this NovaCron knows version {VERSION}",
                remedy="use the NovaCron that wrote it, or a later one",
            )
        if reserved or length > MAX_HEADER:
            raise self._invalid("its beginning is damaged")
        packed = self._file.read(length)
        if len(packed) < length:
            raise self._cut()
        try:
            header = decode_header(packed)
        except ValueError as error:
            raise self._invalid(str(error)) from error
        self._hash.update(prefix + packed)
        self._start = self._file.tell()
        return header

    def _checked_frames(self) -> Iterator[tuple[int, list[Row]]]:
        """Index of the table and rows, to the end of the file, which is checked before this ends."""
        try:
            yield from self._read_frames()
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _read_frames(self) -> Iterator[tuple[int, list[Row]]]:
        import zstandard

        decompress = zstandard.ZstdDecompressor(max_window_size=MAX_CONTENT)
        hashed = self._hash.copy()
        self._file.seek(self._start)
        counts = [0] * len(self.tables)
        last = 0
        while True:
            field = self._take(LENGTH.size)
            hashed.update(field)
            (length,) = LENGTH.unpack(field)
            if length == 0:
                break
            if length > MAX_CONTENT:
                raise self._invalid("a frame is longer than any can be")
            frame = self._take(length)
            hashed.update(frame)
            try:
                # Looked at before a byte of it is allocated.
                size = zstandard.get_frame_parameters(frame).content_size
                if not 0 < size <= MAX_CONTENT:
                    raise self._invalid("a frame has no size that can be")
                content = decompress.decompress(frame, allow_extra_data=False)
            except zstandard.ZstdError as error:
                raise self._invalid("a frame cannot be decompressed") from error
            index, rows = self._decode(content)
            if index < last:
                raise self._invalid("its tables are not in order")
            last = index
            counts[index] += len(rows)
            yield index, rows
        digest = self._take(DIGEST_BYTES)
        if digest != hashed.digest():
            raise self._invalid("its checksum does not fit: something in it was changed")
        if self._file.read(1):
            raise self._invalid("something follows its end")
        for table, count in zip(self.tables, counts, strict=True):
            if count != table.rows:
                raise self._invalid(f"it has {count} of {table.rows} rows of {table.name}")
        if self.sha256 not in ("", hashed.hexdigest()):
            raise self._invalid("it was changed while it was read")
        self.sha256 = hashed.hexdigest()

    def _decode(self, content: bytes) -> tuple[int, list[Row]]:
        try:
            found: Any = msgpack.unpackb(
                content, max_array_len=MAX_ITEMS, max_map_len=0, max_ext_len=0
            )
        except (ValueError, msgpack.UnpackException) as error:
            raise self._invalid("a frame cannot be decoded") from error
        match found:
            case [int(index), list(rows)] if type(index) is int and rows:
                if not 0 <= index < len(self.tables):
                    raise self._invalid("a frame belongs to no table")
            case _:
                raise self._invalid("a frame holds no rows")
        width = len(self.tables[index].columns)
        for row in rows:
            if not isinstance(row, list) or len(row) != width:
                raise self._invalid(f"a row of {self.tables[index].name} has a wrong shape")
            for value in row:
                kind = type(value)
                if kind is int:
                    if value not in _INTEGERS:
                        raise self._invalid("it holds an integer of more than 64 bits")
                elif value is not None and kind not in (str, float, bytes):
                    raise self._invalid("it holds a value of no known type")
        return index, rows

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._cut()
        return data

    def _cut(self) -> BackupInvalidError:
        return self._invalid("it is cut short")

    def _invalid(self, why: str) -> BackupInvalidError:
        return BackupInvalidError(
            f"the backup {self.path} cannot be used",
            why=why,
            remedy="take another backup, or this one from where it was copied",
        )


def unreadable(path: Path, error: OSError) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"cannot read {path}",
        why=error.strerror or type(error).__name__,
        remedy="name a file that is there and that you may read",
    )

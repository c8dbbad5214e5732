"""Where the last boots' reports lie: ``boot/reports/<UTC time>-<boot id>.json``.

A report is evidence, so a file that was cut short, zeroed or had a bit flipped is never taken for
one: each carries a CRC-32, and what does not match goes to the quarantine and is named.
"""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from pathlib import Path
from typing import Final

from novacron.boot.report import Report, ReportError
from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.errors import NotFoundError

_CHECKSUM: Final = "checksum"
_STAMP_FORMAT: Final = "%Y%m%dT%H%M%S"


class ReportNotFoundError(ReportError, NotFoundError):
    """No kept report matches what was asked for."""

    code = "boot.report.not_found"


class ReportStore:
    """The reports of one data directory. Blocks on the disk: use it in a worker thread."""

    __slots__ = ("_data_directory", "directory", "keep")

    def __init__(self, data_directory: DataDirectory, keep: int = 10) -> None:
        """*keep*: reports that stay, newest first (``boot.keep_reports``)."""
        self._data_directory = data_directory
        self.directory: Final = data_directory.boot / "reports"
        self.keep: Final = keep

    def write(self, report: Report) -> Path:
        """Keep *report* durably and remove those past ``keep``. Writing a boot again replaces it.

        Raises:
          OSError: the disk is full or read-only; nothing was removed.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = self.paths()
        path = next((path for path in paths if _boot_id(path) == report.boot_id), None)
        if path is None:
            path = self.directory / f"{self._stamp(report, paths)}-{report.boot_id}.json"
        write_durably(path, encode(report))
        for old in [other for other in paths if other != path][self.keep - 1 :]:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()
        return path

    def paths(self) -> list[Path]:
        """The kept reports' files, newest boot first; empty where nothing was kept yet."""
        try:
            found = list(self.directory.glob("[0-9]*-*.json"))
        except OSError:
            return []
        return sorted(found, key=lambda path: path.name, reverse=True)

    def read(self, path: Path) -> Report:
        """Read one report; a damaged file is moved to the quarantine.

        Raises:
          ReportError: it is damaged; the message says where it lies now.
          ReportNotFoundError: there is no such file.
        """
        try:
            return read_report(path, checksum_needed=True)
        except ReportNotFoundError:
            raise
        except ReportError as exc:
            try:
                moved = self._data_directory.quarantine(path)
            except OSError as failure:
                exc.remedy = f"remove {path}; it could not be quarantined ({failure.strerror})"
            else:
                exc.remedy = f"nothing needs doing, the file was set aside as {moved}"
            raise

    def newest(self, count: int | None = None) -> tuple[list[Report], list[ReportError]]:
        """The newest *count* readable reports, newest first, and what was wrong with others."""
        reports: list[Report] = []
        problems: list[ReportError] = []
        for path in self.paths():
            if count is not None and len(reports) >= count:
                break
            try:
                reports.append(self.read(path))
            except ReportError as exc:
                problems.append(exc)
        return reports, problems

    def find(self, selector: str) -> Report:
        """*selector*: ``-1`` the newest boot, ``-2`` the one before, …; the beginning of a boot id;
        or the path of a report file.

        Raises:
          ReportNotFoundError: nothing matches, or an id's beginning matches two boots.
          ReportError: the file is damaged.
        """
        paths = self.paths()
        if selector.startswith("-") and selector[1:].isdecimal() and int(selector[1:]) > 0:
            position = int(selector[1:])
            if position > len(paths):
                raise ReportNotFoundError(
                    f"no boot report {selector}",
                    why=f"{_count(len(paths))} kept in {self.directory}",
                    remedy="boot once, or choose another data directory with --data-dir"
                    if not paths
                    else f"choose one of -1 to -{len(paths)}",
                    key="boot.keep_reports",
                )
            return self.read(paths[position - 1])
        if "/" in selector or selector.endswith(".json"):
            return read_report(Path(selector))
        matches = [path for path in paths if selector and _boot_id(path).startswith(selector)]
        if len(matches) != 1:
            known = ", ".join(_boot_id(path)[:8] for path in (matches or paths)[:10])
            raise ReportNotFoundError(
                f"no single boot report {selector!r}",
                why=f"{len(matches)} boots have an id that begins so",
                remedy=f"choose one of {known}" if known else "boot once first",
                key="boot.keep_reports",
            )
        return self.read(matches[0])

    def _stamp(self, report: Report, paths: list[Path]) -> str:
        """File names must sort by boot even if the clock was set back in between: a stamp never
        comes before the newest one there. The report itself holds the true time."""
        stamp = _format_stamp(report.started)
        if paths and (newest := paths[0].name.rpartition("Z-")[0]) >= stamp[:-1]:
            stamp = _next_stamp(newest) or stamp
        return stamp


def encode(report: Report) -> bytes:
    """The report as a file's content: one JSON object, its checksum last."""
    body = _canonical(report.to_json())
    crc = f"{zlib.crc32(body.encode()):08x}"
    return f'{body[:-1]}, "{_CHECKSUM}": "crc32:{crc}"}}\n'.encode()


def read_report(path: Path, *, checksum_needed: bool = False) -> Report:
    """Read a report file, wherever it lies; one written by ``--report`` has no checksum.

    Raises:
      ReportNotFoundError: there is no such file, or it may not be read.
      ReportError: it is damaged or no boot report.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ReportNotFoundError(
            f"cannot read the boot report {path}", why=exc.strerror or str(exc)
        ) from exc
    try:
        return _decode(content, checksum_needed)
    except ReportError as exc:
        exc.what = f"cannot read the boot report {path}"
        raise


def _decode(content: bytes, checksum_needed: bool) -> Report:
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        raise ReportError("cannot read the boot report", why="it is not UTF-8 text") from exc
    report = Report.loads(text)
    stored = report.data.pop(_CHECKSUM, None)
    if stored is None and not checksum_needed:
        return report
    body, separator, _ = text.rpartition(f', "{_CHECKSUM}": ')
    if not separator or stored != f"crc32:{zlib.crc32((body + '}').encode()):08x}":
        raise ReportError("cannot read the boot report", why="its checksum does not match")
    return report


def _canonical(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _format_stamp(epoch: float) -> str:
    whole, milliseconds = divmod(round(epoch * 1000), 1000)
    return time.strftime(_STAMP_FORMAT, time.gmtime(whole)) + f".{milliseconds:03d}Z"


def _next_stamp(stamp: str) -> str | None:
    """One millisecond after *stamp* (without its Z), or None if it is not a stamp."""
    import calendar

    try:
        seconds, _, milliseconds = stamp.partition(".")
        epoch = calendar.timegm(time.strptime(seconds, _STAMP_FORMAT))
        return _format_stamp(epoch + (int(milliseconds) + 1) / 1000)
    except ValueError:
        return None


def _boot_id(path: Path) -> str:
    return path.name.partition("Z-")[2].removesuffix(".json")


def _count(number: int) -> str:
    return "one report is" if number == 1 else f"{number} reports are"

"""The newest time seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.security import clock as module
from novacron.security.clock import ClockRecord
from novacron.security.errors import StorageFailedError
from tests.security.stand_ins import prepared


def test_a_clock_that_goes_back_is_measured_against_the_newest_time_of_any_boot(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path)
    time = 1000.0
    record = ClockRecord(directory, now=lambda: time)
    assert record.load() is None
    assert record.behind() < 0
    record.advance()
    time = 400.0
    record.advance()
    later = ClockRecord(directory, now=lambda: 900.0)
    assert later.load() is None
    assert later.behind() == pytest.approx(100.0)


@pytest.mark.parametrize("damage", [b"", b"\0" * 80, b"{}", b"nonsense"])
def test_a_damaged_record_is_set_aside_and_said(tmp_path: Path, damage: bytes) -> None:
    directory = prepared(tmp_path)
    ClockRecord(directory, now=lambda: 1000.0).advance()
    (directory.secrets / "clock.json").write_bytes(damage)
    record = ClockRecord(directory, now=lambda: 10.0)
    warning = record.load()
    assert warning is not None
    assert "was damaged" in warning
    aside = list(directory.quarantine_area.iterdir())
    assert [path.read_bytes() for path in aside] == [damage]
    assert ClockRecord(directory).load() is None


def test_a_disk_that_refuses_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "write_durably", read_only)
    with pytest.raises(StorageFailedError, match="mounted read-only"):
        ClockRecord(prepared(tmp_path)).advance()

"""No damage to a kept report is believed, and all of it is set aside and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.boot.report import ReportError
from novacron.boot.report_store import ReportStore, encode, read_report
from novacron.data_directory import DataDirectory
from tests.boot.damage import bit_flips, truncations, zeroings
from tests.boot.reports import failed_report, small_report


def test_no_truncation_zeroing_or_flipped_bit_changes_what_a_report_says(tmp_path: Path) -> None:
    original = failed_report().to_json()
    content = encode(failed_report())
    path = tmp_path / "report.json"
    everything = [*truncations(content), *zeroings(content), *bit_flips(content)]
    believed = 0
    # A step that shares no factor with eight or three meets every bit and each kind of damage.
    for damaged in everything[::7]:
        path.write_bytes(damaged)
        try:
            report = read_report(path, checksum_needed=True)
        except ReportError:
            continue
        believed += 1
        assert report.to_json() == original
    assert believed < len(everything) / 7 / 100


def test_damaged_reports_are_set_aside_and_the_next_boot_is_kept_all_the_same(
    data_directory: DataDirectory,
) -> None:
    store = ReportStore(data_directory)
    whole = small_report("f" * 32)
    store.write(whole)
    content = encode(small_report("0" * 32))
    for number, damaged in enumerate([b"", bytes(len(content)), content[:-9], content[9:]]):
        damaged_path = store.directory / f"20200101T00000{number}.000Z-{number:032x}.json"
        damaged_path.write_bytes(damaged)
    reports, problems = store.newest()

    assert [report.boot_id for report in reports] == [whole.boot_id]
    assert len(problems) == 4
    boxes = sorted(data_directory.quarantine_area.iterdir())
    assert len(boxes) == 4
    assert all(any(str(box) in problem.remedy for problem in problems) for box in boxes)
    store.write(small_report("e" * 32))
    assert len(store.newest()[0]) == 2


@pytest.mark.parametrize("position", [-1, 0, 100])
def test_a_zero_byte_anywhere_is_noticed(tmp_path: Path, position: int) -> None:
    content = bytearray(encode(small_report()))
    content[position] = 0
    (tmp_path / "r.json").write_bytes(bytes(content))
    with pytest.raises(ReportError):
        read_report(tmp_path / "r.json", checksum_needed=True)

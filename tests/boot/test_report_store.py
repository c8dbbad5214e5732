from __future__ import annotations

import random
from pathlib import Path

import pytest

from novacron.boot.report import Report, ReportError
from novacron.boot.report_store import ReportNotFoundError, ReportStore, encode, read_report
from novacron.data_directory import DataDirectory
from tests.boot.reports import failed_report, small_report


@pytest.fixture
def store(tmp_path: Path) -> ReportStore:
    return ReportStore(DataDirectory(tmp_path), keep=10)


def boot(number: int, started: float | None = None) -> Report:
    return small_report(f"{number:032x}", started=started or 1_790_000_000.0 + number)


def test_a_written_report_is_found_as_the_newest(store: ReportStore) -> None:
    path = store.write(boot(1))
    assert path.name == f"20260921T141321.000Z-{1:032x}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.find("-1").to_json() == boot(1).to_json()


def test_only_the_newest_ten_are_kept(store: ReportStore) -> None:
    for number in range(13):
        store.write(boot(number))
    reports, problems = store.newest()
    assert [report.boot_id for report in reports] == [f"{n:032x}" for n in range(12, 2, -1)]
    assert problems == []
    assert len(list(store.directory.iterdir())) == 10


def test_writing_a_boot_again_replaces_its_report(store: ReportStore) -> None:
    store.write(boot(1))
    store.write(small_report(f"{1:032x}", started=1_790_000_001.0, state="degraded"))
    assert [report.state for report in store.newest()[0]] == ["degraded"]


def test_a_clock_set_back_does_not_make_the_last_boot_an_old_one(store: ReportStore) -> None:
    for number in range(10):
        store.write(boot(number))
    late = boot(99, started=1_000_000_000.5)
    store.write(late)
    assert store.find("-1").boot_id == late.boot_id
    assert store.find("-1").started == 1_000_000_000.5
    assert len(store.paths()) == 10


def test_two_boots_in_the_same_millisecond_keep_their_order(store: ReportStore) -> None:
    for number in (5, 4, 3, 2, 1):
        store.write(boot(number, started=1_790_000_000.0))
    assert [r.boot_id[-1] for r in store.newest()[0]] == ["1", "2", "3", "4", "5"]


def test_boots_are_selected_by_position_and_by_the_beginning_of_their_id(
    store: ReportStore, tmp_path: Path
) -> None:
    store.write(small_report("abc1" + "0" * 28))
    store.write(small_report("abd2" + "0" * 28))
    assert store.find("-2").boot_id.startswith("abc1")
    assert store.find("abd").boot_id.startswith("abd2")
    outside = tmp_path / "elsewhere.json"
    outside.write_text(failed_report().dumps())
    assert store.find(str(outside)).state == "failed"


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("-3", r"no boot report -3: 2 reports are kept in .*Choose one of -1 to -2"),
        ("ab", r"no single boot report 'ab': 2 boots have an id that begins so.*abd20000, abc1"),
        ("ff", r"no single boot report 'ff': 0 boots have an id that begins so"),
        ("", r"no single boot report ''"),
        ("-0", r"no single boot report '-0'"),
        ("/nowhere/r.json", r"cannot read the boot report /nowhere/r.json: No such file"),
    ],
)
def test_a_selector_that_matches_nothing_says_what_is_there(
    store: ReportStore, selector: str, message: str
) -> None:
    store.write(small_report("abc1" + "0" * 28))
    store.write(small_report("abd2" + "0" * 28))
    with pytest.raises(ReportNotFoundError) as caught:
        store.find(selector)
    caught.match(message)


def test_without_any_boot_the_message_says_so(store: ReportStore) -> None:
    with pytest.raises(ReportNotFoundError) as caught:
        store.find("-1")
    caught.match("0 reports are kept.*Boot once")


def test_a_damaged_report_is_quarantined_named_and_the_others_still_read(
    store: ReportStore, tmp_path: Path
) -> None:
    store.write(boot(1))
    damaged = store.write(boot(2))
    damaged.write_bytes(b"\0" * 100)
    reports, problems = store.newest()
    assert [report.boot_id for report in reports] == [f"{1:032x}"]
    assert "was set aside as" in problems[0].remedy
    assert not damaged.exists()
    [moved] = (tmp_path / "quarantine").iterdir()
    assert moved.read_bytes() == b"\0" * 100
    assert str(moved) in problems[0].remedy


def test_a_damaged_report_that_cannot_be_moved_is_named_all_the_same(
    store: ReportStore, tmp_path: Path
) -> None:
    path = store.write(boot(1))
    path.write_bytes(b"{")
    (tmp_path / "quarantine").write_text("a file where the directory would be")
    with pytest.raises(ReportError) as caught:
        store.read(path)
    assert "could not be quarantined" in caught.value.remedy


def test_every_truncation_and_zeroed_tail_is_noticed(tmp_path: Path) -> None:
    content = encode(small_report())
    path = tmp_path / "report.json"
    for length in range(0, len(content) - 1, 37):
        for damaged in (content[:length], content[:length] + bytes(len(content) - length)):
            path.write_bytes(damaged)
            with pytest.raises(ReportError):
                read_report(path, checksum_needed=True)


def test_no_flipped_bit_changes_what_a_report_says(tmp_path: Path) -> None:
    original = failed_report().to_json()
    content = encode(failed_report())
    path = tmp_path / "report.json"
    source = random.Random(7)
    noticed = 0
    for _ in range(1500):
        position, bit = source.randrange(len(content)), source.randrange(8)
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            report = read_report(path, checksum_needed=True)
        except ReportError:
            noticed += 1
        else:
            assert report.to_json() == original
    assert noticed > 1400

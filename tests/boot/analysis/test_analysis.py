from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from novacron.boot import analysis
from novacron.boot.analysis.text import duration
from novacron.boot.report_store import ReportStore
from novacron.data_directory import DataDirectory
from tests.boot.reports import retried_report, small_report


@pytest.fixture
def store(tmp_path: Path) -> ReportStore:
    store = ReportStore(DataDirectory(tmp_path))
    store.write(small_report())
    store.write(retried_report())
    return store


@pytest.mark.parametrize("kind", analysis.main_choices)
def test_each_analysis_prints_something_about_the_newest_boot(
    kind: str, store: ReportStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.run(kind, store) == 0
    assert "11111111" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["blame", "critical-path", "diff", "json"])
def test_json_output_is_json_alone(
    kind: str, store: ReportStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.run(kind, store, as_json=True) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_an_earlier_boot_is_selected(
    store: ReportStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.run("blame", store, ["-2"]) == 0
    assert "boot 0b6e3a52" in capsys.readouterr().out


def test_diff_compares_the_last_two_or_the_named_with_the_last(
    store: ReportStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.run("diff", store) == 0
    assert analysis.run("diff", store, ["0b6e"]) == 0
    for text in capsys.readouterr().out.split("before: ")[1:]:
        assert text.startswith("boot 0b6e3a52")
        assert "after:  boot 11111111" in text


def test_a_file_is_written_and_named(
    store: ReportStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "boot.svg"
    assert analysis.run("plot", store, output_path=str(target)) == 0
    assert target.read_text().startswith("<svg")
    assert capsys.readouterr().out == f"{target}\n"


@pytest.mark.parametrize(
    ("kind", "selectors", "as_json", "code", "message"),
    [
        ("blame", ["-1", "-2"], False, 2, "takes 1 boot(s), not 2"),
        ("diff", ["-1", "-2", "-1"], False, 2, "takes 2 boot(s), not 3"),
        ("plot", [], True, 2, "--analyze plot draws SVG; for JSON use --analyze json"),
        ("blame", ["-9"], False, 1, "no boot report -9: 2 reports are kept"),
    ],
)
def test_what_cannot_be_analysed_is_said_on_standard_error(
    kind: str,
    selectors: list[str],
    as_json: bool,
    code: int,
    message: str,
    store: ReportStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert analysis.run(kind, store, selectors, as_json=as_json) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_a_file_that_cannot_be_written_is_said(
    store: ReportStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.run("json", store, output_path=str(tmp_path / "no" / "file")) == 1
    assert "cannot write" in capsys.readouterr().err


def test_an_unknown_analysis_is_refused() -> None:
    with pytest.raises(ValueError, match="no analysis 'magic'; there are blame"):
        analysis.render("magic", small_report())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.00042, "0.4 ms"), (0.251, "251.0 ms"), (3.42, "3.420 s"), (123.4, "123.4 s")],
)
def test_durations_are_short(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_analysing_imports_neither_trio_nor_any_third_party_module() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from novacron.boot.analysis import blame, critical_path, diff, plot\n"
        "from novacron.boot import report, report_store\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert set(output.split()) <= set(sys.stdlib_module_names) | {"novacron"}

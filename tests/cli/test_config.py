"""``novacron config``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from novacron.config.reference import default_yaml

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text("api:\n  rate_limit: 7\n")
    return path


def test_explain_names_value_source_and_meaning(run: Run, file: Path) -> None:
    status, out, _ = run("config", "explain", "api.rate_limit", "-c", str(file))
    assert status == 0
    assert out.splitlines() == [
        "api.rate_limit",
        "  meaning:  Requests a second for each token or address.",
        "  value:    7.0",
        f"  source:   {file}:2",
        "  default:  50.0",
        "  accepts:  a number, greater than 0",
        "  reload:   SIGHUP applies a change",
        "  variable: NOVACRON_API__RATE_LIMIT",
    ]


def test_explain_as_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVACRON_API__PORT", "1")
    status, out, _ = run("config", "explain", "api.port", "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["value"], found["source"]) == (1, "NOVACRON_API__PORT")


def test_explaining_an_unknown_key_names_the_nearest(run: Run) -> None:
    status, _, err = run("config", "explain", "api.prt")
    assert status == 1
    assert "did you mean api.port?" in err


def test_show_lists_every_key_and_changed_only_those_set(run: Run, file: Path) -> None:
    _, out, _ = run("config", "show", "-c", str(file))
    assert len(out.splitlines()) > 50
    _, out, _ = run("config", "show", "--changed", "-c", str(file))
    assert [line.split() for line in out.splitlines()] == [
        ["KEY", "VALUE", "SOURCE"],
        ["api.rate_limit", "7.0", f"{file}:2"],
    ]


def test_show_as_json_is_the_whole_or_the_changed(run: Run, file: Path) -> None:
    _, out, _ = run("config", "show", "--json", "-c", str(file))
    assert json.loads(out)["api"]["rate_limit"] == 7
    _, out, _ = run("config", "show", "--json", "--changed", "-c", str(file))
    assert json.loads(out) == {"api.rate_limit": 7}


def test_show_never_shows_what_a_reference_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVACRON_PLANTED", "hunter2hunter2")
    for arguments in (("show",), ("show", "--json"), ("explain", "security.master_key")):
        status, out, err = run(
            "config", *arguments, "--set", "security.master_key=env:NOVACRON_PLANTED"
        )
        assert status == 0
        assert "env:NOVACRON_PLANTED" in out
        assert "hunter2" not in out + err


def test_check_says_what_was_checked(run: Run, file: Path) -> None:
    assert run("config", "check")[1] == "the configuration is valid (no file; keys set: 0)\n"
    assert (
        run("config", "check", str(file))[1] == "the configuration is valid (1 file; keys set: 1)\n"
    )
    status, out, _ = run("config", "check", str(file), "-c", str(file))
    assert (status, out) == (0, "the configuration is valid (2 files; keys set: 1)\n")


def test_schema_is_json(run: Run) -> None:
    assert json.loads(run("config", "schema")[1])["title"] == "NovaCron configuration"


def test_default_is_the_default_file(run: Run) -> None:
    assert run("config", "default")[1] == default_yaml()

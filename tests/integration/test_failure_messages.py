"""What an operator is told when a boot goes wrong, for every cause we know how to provoke.

Real nodes, real causes. Each case holds the exit code, the words on the terminal and the words in
the report to what docs/guide/failures.md promises: what failed, why, what to do, which key. Needs
root, as CI has it: file systems are mounted and one user is told from another.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from novacron.boot.report import Report
from tests.integration.causes import (
    certificates,
    configuration,
    data_directory,
    host,
    listeners,
    secrets,
    state,
)
from tests.integration.failing_node import Cause, Outcome, Scene, joined

CAUSES = (
    *listeners.CAUSES,
    *data_directory.CAUSES,
    *secrets.CAUSES,
    *certificates.CAUSES,
    *state.CAUSES,
    *host.CAUSES,
    *configuration.CAUSES,
)


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the data directory of a node that was READY once and stopped; one a node."""
    made: dict[str, Path] = {}

    def make(node_id: str) -> Path:
        if node_id not in made:
            with ExitStack() as stack:
                scene = Scene(tmp_path_factory.mktemp("lived"), make, stack)
                scene.settings["system.node_id"] = node_id
                outcome = scene.run()
                assert outcome.exit_code == 0, outcome.output
            made[node_id] = scene.data
        return made[node_id]

    return make


def play(
    provoke: Callable[[Scene], object], tmp_path: Path, lived: Callable[[str], Path], *more: str
) -> tuple[Outcome, dict[str, object]]:
    """The outcome of a node with what *provoke* made wrong, and the words for its message."""
    with ExitStack() as stack:
        scene = Scene(tmp_path, lived, stack)
        found = provoke(scene)
        words = found if isinstance(found, dict) else {}
        scene.arguments += more
        return scene.run(), {**words, "data": scene.data, "root": scene.root}


@pytest.mark.parametrize("cause", CAUSES, ids=[cause.name.replace(" ", "-") for cause in CAUSES])
def test_an_operator_is_told_what_failed_and_why_and_what_to_do(
    cause: Cause, tmp_path: Path, lived: Callable[[str], Path]
) -> None:
    outcome, words = play(cause.provoke, tmp_path, lived)
    cause = cause.filled(words)

    assert outcome.exit_code == cause.exit_code, outcome.output
    shown = joined(outcome.output)
    for text in (cause.what, cause.why, cause.remedy):
        # A sentence of its own begins with a capital letter.
        assert text in shown or text[:1].upper() + text[1:] in shown
    assert cause.key in shown
    assert "Traceback" not in shown
    _check_report(cause, outcome)


def _check_report(cause: Cause, outcome: Outcome) -> None:
    report = Report.from_json(outcome.report).data
    if cause.exit_code in (1, 78):
        failure = report["failure"]
        assert report["state"] == "failed"
        assert cause.what in failure["what"]
        assert cause.why in joined(failure["why"])
        assert cause.remedy in failure["remedy"]
        assert cause.key == failure["key"]
        # Nobody is left alone with a cause that nothing is said to be done about.
        assert failure["why"]
        assert failure["remedy"]
        return
    assert report["failure"] is None
    if cause.exit_code == 3:
        (entry,) = report["degraded"]
        assert cause.what in entry["why"]
        assert cause.why in entry["why"]
        # One that serves and is not healthy has its remedy in a warning.
        told = (entry.get("remedy", ""), *report["warnings"])
        assert any(cause.remedy in text for text in told)
        assert entry.get("key", cause.key) == cause.key
        return
    texts = (cause.what, cause.why, cause.remedy, cause.key)
    assert any(all(text in warning for text in texts) for warning in report["warnings"])


def test_no_cause_is_listed_twice_and_there_are_enough() -> None:
    names = [cause.name for cause in CAUSES]
    assert len(set(names)) == len(names)
    assert len(names) >= 25


def test_a_failure_before_the_boot_is_a_json_line_where_those_were_asked_for(
    tmp_path: Path, lived: Callable[[str], Path]
) -> None:
    outcome, words = play(data_directory.is_a_file, tmp_path, lived, "--log-format", "json")

    assert outcome.exit_code == 1
    (event,) = [json.loads(line) for line in outcome.output.splitlines()]
    assert event["event"] == "boot_failed"
    assert event["failure"]["what"] == f"the data directory {words['data']} cannot be used"
    assert event["failure"]["key"] == "system.data_dir"


def test_a_broken_configuration_names_the_way_back_to_the_one_that_worked(
    tmp_path: Path, lived: Callable[[str], Path]
) -> None:
    def provoke(scene: Scene) -> None:
        scene.booted_before()
        configuration.unknown_key(scene)

    outcome, _ = play(provoke, tmp_path, lived)

    assert outcome.exit_code == 78
    assert "can be booted with --last-known-good" in outcome.output


def test_a_fault_of_our_own_is_called_one_and_its_place_is_logged(
    tmp_path: Path, lived: Callable[[str], Path]
) -> None:
    outcome, _ = play(host.fault_of_our_own, tmp_path, lived)

    assert outcome.exit_code == 1
    failure = outcome.report["failure"]
    assert failure["component"] == "network"
    assert failure["what"] == "'peers'"
    assert failure["why"] == "an unexpected KeyError, which is a fault of NovaCron's own"
    assert "report it with the boot report and the log" in failure["remedy"]
    assert "in _broken" in outcome.output
    assert "in _broken" in (tmp_path / "data/log/novacron.log").read_text()


def test_a_flag_that_is_not_understood_is_wrong_usage(
    tmp_path: Path, lived: Callable[[str], Path]
) -> None:
    outcome, _ = play(lambda scene: None, tmp_path, lived, "--set", "api.port")

    assert outcome.exit_code == 2
    assert "argument --set: KEY=VALUE is expected, for example api.port=0" in outcome.output


def test_a_report_that_cannot_be_written_fails_nothing(
    tmp_path: Path, lived: Callable[[str], Path]
) -> None:
    nowhere = tmp_path / "reports" / "boot.json"
    with ExitStack() as stack:
        scene = Scene(tmp_path, lived, stack)
        scene.booted_before()
        outcome = scene.run(report=nowhere)

    assert outcome.exit_code == 0
    assert f"the report was not written to {nowhere}: No such file or directory" in outcome.output

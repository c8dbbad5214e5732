"""What an operator reads when a configuration is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from novacron.config import ConfigInvalidError, Override, load
from novacron.errors import ConfigError, InvalidError


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    file = tmp_path / "node.yaml"
    file.write_text(text)
    with pytest.raises(ConfigInvalidError) as caught:
        load([file], environ=environ)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "api: {port: '70'}",
            'node.yaml:1: api.port: "70" is text, write it without quotes; accepted: a whole number, at least 0 and at most 65535',
        ),
        (
            "api: {port: true}",
            "node.yaml:1: api.port: true is a truth value; accepted: a whole number, at least 0 and "
            "at most 65535",
        ),
        (
            "api: {port: 1.5}",
            "node.yaml:1: api.port: 1.5 is a number; accepted: a whole number, at least 0 and at most 65535",
        ),
        (
            "api:\n  port: 65536",
            "node.yaml:2: api.port: 65536 is not accepted; accepted: a whole number, at least 0 and "
            "at most 65535",
        ),
        (
            "api:\n  port:",
            "node.yaml:2: api.port: null is nothing; accepted: a whole number, at least 0 and at most 65535",
        ),
        (
            "api: {port: [1]}",
            "node.yaml:1: api.port: [1] is a list; accepted: a whole number, at least 0 and at most 65535",
        ),
        (
            "api: {port: {a: 1}}",
            'node.yaml:1: api.port: {"a": 1} is a mapping; accepted: a whole number, at least 0 and '
            "at most 65535",
        ),
        (
            "network: {ping_interval: 0}",
            "node.yaml:1: network.ping_interval: 0 is not accepted; accepted: a number of seconds, "
            "greater than 0 and at most 31622400",
        ),
        (
            "system: {log_level: loud}",
            'node.yaml:1: system.log_level: "loud" is not accepted; accepted: one of debug, info, '
            "warning, error",
        ),
        (
            "system: {log_file: 1}",
            "node.yaml:1: system.log_file: 1 is a number; accepted: true or false",
        ),
        (
            "system: {node_id: NODE}",
            'node.yaml:1: system.node_id: "NODE" is not accepted; accepted: a UUID in lower case, or null',
        ),
        (
            "network: {seeds: a}",
            'node.yaml:1: network.seeds: "a" is text; accepted: a list in brackets, each text, at most 1024 of them',
        ),
        (
            "network: {seeds: [a, 2]}",
            "node.yaml:1: network.seeds: its item 2 is not accepted; accepted: a list in brackets, each text, at most 1024 of them",
        ),
        (
            "boot: {criticality: high}",
            'node.yaml:1: boot.criticality: "high" is text; accepted: a mapping of names, each to '
            "one of critical, degraded, warning",
        ),
        (
            "boot:\n  criticality:\n    cache: high",
            'node.yaml:3: boot.criticality.cache: "high" is not accepted; accepted: one of critical, '
            "degraded, warning",
        ),
        ("api: 5", "node.yaml:1: api: is a section; accepted: a mapping of its keys"),
        (
            "api:\n  port:7400",
            "node.yaml:1: api: is a section; accepted: a mapping of its keys, with a blank after "
            "each colon",
        ),
        (
            "cache: {max_bytes: 64MB}",
            'node.yaml:1: cache.max_bytes: "64MB" is text; accepted: a whole number of bytes, at '
            "least 1024",
        ),
        (
            "- api",
            "node.yaml:1: a mapping of sections is expected, such as “api:” with its keys "
            "indented below it",
        ),
        ("apy: {}", "node.yaml:1: apy: there is no such key; did you mean api?"),
        (
            "api: {prt: 1}",
            "node.yaml:1: api.prt: there is no such key; did you mean api.port?",
        ),
        (
            "system: {rate_limit: 1}",
            "node.yaml:1: system.rate_limit: there is no such key; did you mean api.rate_limit?",
        ),
        ("zzzzzz: 1", "node.yaml:1: zzzzzz: there is no such key"),
    ],
)
def test_each_mistake_has_its_words(tmp_path: Path, text: str, message: str) -> None:
    assert problems(tmp_path, text) == [message]


def test_all_mistakes_of_all_layers_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api:\n  port: x\n  tsl: on\ndatabase:\n  readers: 0\n")
    with pytest.raises(ConfigInvalidError) as caught:
        load(
            [file],
            [
                Override("cache.ttl", "soon", "--set cache.ttl"),
                Override("nothing", "1", "--set nothing"),
            ],
            {"NOVACRON_API__PRT": "1", "NOVACRON_MONITORING__PORT": "-1"},
        )
    places = {(str(problem.source), problem.key) for problem in caught.value.problems}
    assert places == {
        (f"{file}:2", "api.port"),
        (f"{file}:3", "api.tsl"),
        (f"{file}:5", "database.readers"),
        ("--set cache.ttl", "cache.ttl"),
        ("--set nothing", "nothing"),
        ("NOVACRON_API__PRT", ""),
        ("NOVACRON_MONITORING__PORT", "monitoring.port"),
    }
    text = str(caught.value)
    assert "7 problems" in text
    assert "\n  7. " in text
    assert (
        "NOVACRON_API__PRT: no configuration key has this variable; did you mean NOVACRON_API__PORT?"
        in text
    )
    assert "novacron config explain" in text


def test_a_wrong_value_is_reported_also_where_another_layer_hides_it(tmp_path: Path) -> None:
    found = problems(tmp_path, "api: {port: x}", NOVACRON_API__PORT="1")
    assert len(found) == 1


def test_the_error_is_of_the_configuration_and_asks_to_fix_the_input(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api: {port: x}")
    with pytest.raises(ConfigInvalidError) as caught:
        load([file], environ={})
    error = caught.value
    assert isinstance(error, ConfigError)
    assert isinstance(error, InvalidError)
    assert not error.retryable
    assert error.key == "api.port"


@pytest.mark.parametrize("key", ["security.master_key", "security.private_key"])
@pytest.mark.parametrize("value", ["hunter2hunter2", 12345678, ["hunter2hunter2"]])
def test_a_secret_in_place_of_a_reference_is_not_repeated(
    tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load(overrides={key: value}, environ={})
    text = str(caught.value) + repr(caught.value.args)
    assert "hunter2" not in text
    assert "12345678" not in text
    assert "is not a reference" in text


def test_a_section_on_the_command_line_is_no_key() -> None:
    with pytest.raises(
        ConfigInvalidError, match="--set: api: is a section; accepted: one of its keys"
    ):
        load(overrides={"api": "1"}, environ={})


def test_long_values_are_shortened() -> None:
    with pytest.raises(ConfigInvalidError) as caught:
        load(overrides={"api.port": "x" * 5000}, environ={})
    assert len(str(caught.value)) < 500

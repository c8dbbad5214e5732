"""Explanations, redaction, and the figures of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.config import load
from novacron.config.explain import HIDDEN, UnknownKeyError, redact
from novacron.config.keys import all_keys


def test_an_explanation_names_value_source_and_meaning(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api:\n  rate_limit: 7\n")
    found = load([file], environ={}).explain("api.rate_limit")
    assert found.key == "api.rate_limit"
    assert found.value == 7
    assert found.default == 50.0
    assert found.source == f"{file}:2"
    assert found.meaning == "Requests a second for each token or address."
    assert found.accepted == "a number, greater than 0"
    assert found.reloadable
    assert found.environment == "NOVACRON_API__RATE_LIMIT"


def test_a_key_with_a_short_name_shows_both_variables() -> None:
    found = load(environ={}).explain("dwcp.mode")
    assert found.environment == "NOVACRON_DWCP__MODE, NOVACRON_DWCP_MODE"
    assert not found.reloadable


def test_one_name_of_a_map_can_be_explained() -> None:
    loaded = load(environ={"NOVACRON_BOOT__CRITICALITY__CACHE": "warning"})
    found = loaded.explain("boot.criticality.cache")
    assert (found.value, found.default) == ("warning", None)
    assert found.accepted == "one of critical, degraded, warning"
    assert found.environment == "NOVACRON_BOOT__CRITICALITY__CACHE"
    assert loaded.explain("boot.criticality.api").value is None
    assert loaded.explain("boot.criticality").value == {"cache": "warning"}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("api.prt", "did you mean api.port"),
        ("api", "is a section"),
        ("", "there is no configuration key"),
        ("api.port.x", "did you mean api.port"),
        ("zzzzzzzzz", "lists all keys"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, words: str) -> None:
    with pytest.raises(UnknownKeyError) as caught:
        load(environ={}).explain(key)
    assert words in f"{caught.value.what} {caught.value.remedy}"


def test_every_key_can_be_explained() -> None:
    loaded = load(environ={})
    assert len(loaded.keys()) == len(set(loaded.keys())) > 50
    for key in loaded.keys():  # noqa: SIM118 - not a mapping
        found = loaded.explain(key)
        assert found.source == "default"
        assert found.meaning.endswith(".")
        assert found.accepted
        assert found.value == found.default


def test_references_are_shown_and_values_in_their_place_are_hidden() -> None:
    loaded = load(
        overrides={"security.master_key": "env:NOVACRON_KEY"}, environ={"NOVACRON_KEY": "hunter2"}
    )
    shown = loaded.redacted()
    assert shown["security"]["master_key"] == "env:NOVACRON_KEY"
    assert shown["security"]["private_key"] is None
    assert "hunter2" not in str(shown)
    copy = loaded.as_dict()
    copy["security"]["master_key"] = "hunter2"
    assert redact(copy)["security"]["master_key"] == HIDDEN


def test_every_key_that_names_a_secret_is_marked_as_a_reference() -> None:
    marked = {key.name for key in all_keys().values() if key.reference}
    assert marked == {
        "cache.redis.password",
        "cache.redis.private_key",
        "database.postgresql.password",
        "database.postgresql.private_key",
        "security.master_key",
        "security.pkcs11_pin",
        "security.private_key",
    }


def test_a_reference_into_a_module_is_shown_unless_a_pin_is_in_it() -> None:
    for value, shown in (
        ("pkcs11:token=a;object=b", "pkcs11:token=a;object=b"),
        ("pkcs11:token=a;object=b?pin-value=1234", HIDDEN),
    ):
        loaded = load(overrides={"security.master_key": value}, environ={})
        assert loaded.explain("security.master_key").value == shown


def test_reloadable_keys_are_the_declared_subset() -> None:
    marked = {key.name for key in all_keys().values() if key.reloadable}
    assert marked == {
        "system.log_level",
        "api.rate_limit",
        "api.rate_burst",
        "boot.health.interval",
        "boot.health.deep_interval",
        "boot.health.cache",
        "boot.health.failures",
        "dwcp.amst.limit_bps",
        "security.master_key",
        "security.pkcs11_module",
        "security.pkcs11_pin",
        "security.pkcs11_timeout",
    }

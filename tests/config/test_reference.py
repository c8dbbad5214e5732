"""What is generated from the schema is fresh, and the files that are shipped load."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.config import load
from novacron.config.keys import all_keys
from novacron.config.profiles import PROFILES
from novacron.config.reference import default_yaml, generated, json_schema
from novacron.config.yaml_document import parse_yaml


def test_the_generated_files_are_fresh(repository: Path) -> None:
    stale = [
        str(path)
        for path, text in generated(repository).items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run `python -m novacron.config.reference`"


def test_the_default_file_names_every_key_and_changes_nothing(repository: Path) -> None:
    loaded = load([repository / "configs" / "default.yaml"], environ={})
    assert loaded.settings == load(environ={}).settings
    assert loaded.digest == load(environ={}).digest
    unset = {
        key.name
        for key in all_keys().values()
        if key.path not in loaded.entries and key.default != {}
    }
    assert not unset


@pytest.mark.parametrize("mode", sorted(PROFILES))
def test_the_file_of_each_mode_loads_and_sets_its_mode(repository: Path, mode: str) -> None:
    loaded = load([repository / "configs" / f"{mode}.yaml"], environ={})
    assert loaded.settings.dwcp.mode == mode
    for key, value in PROFILES[mode].items():
        assert loaded.value(key) == value
        assert str(loaded.source(key)) == f"profile {mode} (dwcp.mode)"


def test_profiles_are_typed_as_the_schema_wants() -> None:
    for mode, values in PROFILES.items():
        loaded = load(overrides=values, environ={})
        assert all(loaded.value(key) == value for key, value in values.items()), mode


def test_other_readers_of_yaml_see_the_same_defaults() -> None:
    import yaml

    from novacron.config.documents import plain

    assert plain(parse_yaml(default_yaml())) == yaml.safe_load(default_yaml())


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    for key in all_keys().values():
        where = schema
        for name in key.path[:-1]:
            where = schema["$defs"][where["properties"][name]["$ref"].rsplit("/", 1)[1]]
        assert where["properties"][key.path[-1]]["description"] == key.meaning

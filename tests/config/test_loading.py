"""Layers, precedence and provenance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from novacron.config import ConfigInvalidError, Override, data_directory_for, load, restore
from novacron.config.schema import Settings


def test_without_anything_the_defaults_are_loaded() -> None:
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert not loaded.file_given
    assert str(loaded.source("api.port")) == "default"


def test_defaults_are_valid() -> None:
    # They are constructed without validation, so this is the validation.
    values = load(environ={}).as_dict()
    hosts = values["database"]["postgresql"]["hosts"]
    values["database"]["postgresql"]["hosts"] = tuple(hosts)
    values["network"]["seeds"] = tuple(values["network"]["seeds"])
    values["dwcp"]["amst"]["directories"] = tuple(values["dwcp"]["amst"]["directories"])
    assert Settings.model_validate(values) == Settings.model_construct()


def test_loading_defaults_imports_nothing_that_only_files_and_mistakes_need() -> None:
    program = (
        "import sys, novacron.config\n"
        "novacron.config.load(environ={})\n"
        "heavy = ['yaml', 'difflib', 'argparse', 'trio', 'novacron.config.layers',\n"
        "    'novacron.config.component', 'novacron.config.validation']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_json_file_needs_no_yaml_library(tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    file.write_text('{"api": {"port": 1}}')
    program = (
        "import sys, novacron.config\n"
        "print(novacron.config.load([sys.argv[1]], environ={}).settings.api.port)\n"
        "print('yaml' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["1", "False"]


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.json"
    first.write_text("dwcp: {mode: datacenter}\nnetwork:\n  ping_interval: 2\n  port: 1\n")
    second.write_text('{"network": {"port": 2, "connect_timeout": 3}}')
    environ = {"NOVACRON_NETWORK__CONNECT_TIMEOUT": "4", "NOVACRON_NETWORK__IDLE_TIMEOUT": "50"}
    loaded = load([first, second], {"network.idle_timeout": "60"}, environ)
    network = loaded.settings.network
    assert network.handshake_timeout == 5.0
    assert str(loaded.source("network.handshake_timeout")) == "profile datacenter (dwcp.mode)"
    assert network.ping_interval == 2
    assert str(loaded.source("network.ping_interval")) == f"{first}:3"
    assert network.port == 2
    assert str(loaded.source("network.port")) == f"{second}:1"
    assert network.connect_timeout == 4
    assert str(loaded.source("network.connect_timeout")) == "NOVACRON_NETWORK__CONNECT_TIMEOUT"
    assert network.idle_timeout == 60
    assert str(loaded.source("network.idle_timeout")) == "--set"
    assert network.max_frame_bytes == Settings().network.max_frame_bytes


def test_the_profile_follows_the_mode_from_whichever_layer_sets_it() -> None:
    for loaded in (
        load(overrides={"dwcp.mode": "internet"}, environ={"NOVACRON_DWCP_MODE": "datacenter"}),
        load(environ={"NOVACRON_DWCP_MODE": "internet"}),
        load(environ={"NOVACRON_DWCP__MODE": "internet"}),
        load(environ={}, profile="internet"),
    ):
        assert loaded.settings.network.ping_interval == 15.0


def test_a_forced_mode_wins_over_the_measured_profile() -> None:
    loaded = load(overrides={"dwcp.mode": "datacenter"}, environ={}, profile="internet")
    assert loaded.settings.network.ping_interval == 1.0


def test_maps_merge_by_name_across_layers(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("boot:\n  criticality:\n    cache: critical\n    api: warning\n")
    loaded = load([file], environ={"NOVACRON_BOOT__CRITICALITY__CACHE": "degraded"})
    assert loaded.settings.boot.criticality == {"cache": "degraded", "api": "warning"}
    assert str(loaded.source("boot.criticality.api")) == f"{file}:4"
    assert str(loaded.source("boot.criticality")) == "NOVACRON_BOOT__CRITICALITY__CACHE"


@pytest.mark.parametrize("text", ["a:1,b:2", " a:1 , b:2 ", '["a:1", "b:2"]'])
def test_a_list_in_a_variable_is_json_or_comma_separated(text: str) -> None:
    assert load(environ={"NOVACRON_NETWORK__SEEDS": text}).settings.network.seeds == ("a:1", "b:2")


@pytest.mark.parametrize(
    "text", ["cache=warning,api=degraded", '{"cache":"warning","api":"degraded"}']
)
def test_a_map_in_a_variable_is_json_or_pairs(text: str) -> None:
    loaded = load(environ={"NOVACRON_BOOT__CRITICALITY": text})
    assert loaded.settings.boot.criticality == {"cache": "warning", "api": "degraded"}


@pytest.mark.parametrize(
    ("variable", "key", "text"),
    [
        ("NOVACRON_NODE_ID", "system.node_id", "6a0d6b5c-0000-4000-8000-000000000001"),
        ("NOVACRON_DATA_DIR", "system.data_dir", "somewhere"),
        ("NOVACRON_LOG_LEVEL", "system.log_level", "debug"),
        ("NOVACRON_DWCP_MODE", "dwcp.mode", "hybrid"),
        ("NOVACRON_LISTEN_ADDRESS", "network.listen_address", "192.0.2.1"),
    ],
)
def test_the_five_short_names_set_their_keys(variable: str, key: str, text: str) -> None:
    loaded = load(environ={variable: text})
    assert loaded.value(key) == text
    assert str(loaded.source(key)) == variable


def test_two_variables_that_disagree_about_a_key_are_refused() -> None:
    environ = {"NOVACRON_LOG_LEVEL": "debug", "NOVACRON_SYSTEM__LOG_LEVEL": "error"}
    with pytest.raises(ConfigInvalidError, match="differs from NOVACRON_LOG_LEVEL"):
        load(environ=environ)
    environ["NOVACRON_LOG_LEVEL"] = "error"
    assert load(environ=environ).settings.system.log_level == "error"


def test_other_variables_are_none_of_its_business() -> None:
    assert load(environ={"PATH": "x", "NOVACRONX": "y"}) is load(environ={})


def test_a_later_flag_wins_and_is_named() -> None:
    loaded = load(
        overrides=[Override("api.port", "1", "--set api.port"), Override("api.port", 2, "--port")],
        environ={},
    )
    assert loaded.settings.api.port == 2
    assert str(loaded.source("api.port")) == "--port"


def test_equal_values_have_equal_digests_however_they_were_set(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api:\n  port: 1\n")
    digests = {
        load([file], environ={}).digest,
        load(environ={"NOVACRON_API__PORT": "1"}).digest,
        load(overrides={"api.port": 1}, environ={}).digest,
    }
    assert len(digests) == 1
    assert digests != {load(environ={}).digest}


def test_an_empty_file_is_a_file_that_sets_nothing(tmp_path: Path) -> None:
    for name, text in (
        ("a.yaml", ""),
        ("b.yaml", "# nothing\n"),
        ("c.json", " \n"),
        ("d.yml", "api:\n"),
    ):
        file = tmp_path / name
        file.write_text(text)
        loaded = load([file], environ={})
        assert loaded.file_given
        assert loaded.settings == Settings()


def test_a_copy_restores_the_same_configuration() -> None:
    loaded = load(
        overrides={"network.seeds": "a:1,b:2", "boot.criticality.cache": "critical"},
        environ={"NOVACRON_DWCP_MODE": "internet"},
    )
    again = restore(loaded.as_dict())
    assert again.settings == loaded.settings
    assert again.digest == loaded.digest
    assert str(again.source("network.seeds")) == "last known good configuration"


def test_an_override_wins_over_a_restored_copy() -> None:
    again = restore(load(environ={}).as_dict(), {"api.port": "9"})
    assert again.settings.api.port == 9


def test_a_damaged_copy_is_refused() -> None:
    copy = load(environ={}).as_dict()
    copy["api"]["port"] = "x"
    copy["gone"] = 1
    with pytest.raises(ConfigInvalidError) as caught:
        restore(copy)
    assert len(caught.value.problems) == 2


def test_the_data_directory_is_the_one_that_was_set(tmp_path: Path) -> None:
    settings = load(overrides={"system.data_dir": str(tmp_path)}, environ={}).settings
    assert data_directory_for(settings).root == tmp_path


def test_the_data_directory_of_root_and_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(environ={}).settings
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert data_directory_for(settings).root == Path("/var/lib/novacron")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("XDG_DATA_HOME", "")
    assert data_directory_for(settings).root == Path("/nowhere/.local/share/novacron")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert data_directory_for(settings).root == Path("/nowhere/.local/share/novacron")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert data_directory_for(settings).root == Path("/xdg/novacron")


def test_a_variable_that_a_reference_names_is_no_mistake() -> None:
    loaded = load(
        overrides={"security.master_key": "env:NOVACRON_MASTER_KEY"},
        environ={"NOVACRON_MASTER_KEY": "c2VjcmV0"},
    )
    assert loaded.settings.security.master_key == "env:NOVACRON_MASTER_KEY"
    assert "c2VjcmV0" not in repr(loaded)
    with pytest.raises(ConfigInvalidError):
        load(environ={"NOVACRON_MASTER_KEY": "c2VjcmV0"})

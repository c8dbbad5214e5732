"""The options every entry point shares."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from novacron.config import ConfigInvalidError
from novacron.config.options import add_configuration_options, load_from


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_configuration_options(parser)
    return parser.parse_args(arguments)


def test_files_settings_and_shorthands_reach_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api: {port: 1}\n")
    args = parse("-c", str(file), "--set", "api.rate_burst=3", "--data-dir", "here")
    loaded = load_from(args, {})
    assert loaded.files == (file,)
    assert loaded.settings.api.port == 1
    assert loaded.settings.api.rate_burst == 3
    assert loaded.settings.system.data_dir == "here"
    assert str(loaded.source("api.rate_burst")) == "--set api.rate_burst"
    assert str(loaded.source("system.data_dir")) == "--data-dir"


def test_a_shorthand_wins_over_set() -> None:
    args = parse("--log-level", "debug", "--set", "system.log_level=error")
    assert load_from(args, {}).settings.system.log_level == "debug"


def test_a_value_may_hold_an_equals_sign() -> None:
    assert load_from(parse("--set", "system.data_dir=a=b"), {}).settings.system.data_dir == "a=b"


@pytest.mark.parametrize("text", ["api.port", "=1", ""])
def test_a_setting_that_is_no_pair_is_a_usage_error(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--set", text)
    assert caught.value.code == 2
    assert "KEY=VALUE is expected" in capsys.readouterr().err


def test_a_wrong_shorthand_is_named_as_it_was_written() -> None:
    with pytest.raises(ConfigInvalidError, match=r'--log-level: system\.log_level: "loud"'):
        load_from(parse("--log-level", "loud"), {})

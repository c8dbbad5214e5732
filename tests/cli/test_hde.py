"""``novacron hde``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from novacron._native import hde
from novacron._native.ffi import NativeUnavailableError
from novacron.data_directory import DataDirectory
from novacron.dwcp.hde.dictionary import HEADER, read_dictionary, shipped_paths
from novacron.dwcp.hde.samples import messages

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    directory = tmp_path / "samples"
    write(directory)
    return directory


def write(directory: Path, count: int = 1200) -> None:
    directory.mkdir(parents=True)
    for number, message in enumerate(messages(count, seed=21)):
        (directory / f"{number:04}").write_bytes(message)


def test_codecs_dictionaries_and_settings_are_shown(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("hde", "show", "--set", "dwcp.hde.codec=lz4")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["zstd", "yes", hde.version("zstd"), "-"] in lines
    assert ["dwcp.hde.codec:", "lz4"] in lines
    assert ["1", "shipped", "8192"] in [line[:3] for line in lines]


def test_a_dictionary_that_cannot_be_used_is_named_with_what_to_do(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "short.zdict"
    path.write_bytes(next(shipped_paths()).read_bytes()[: HEADER.size + 10])
    status, out, _ = run("hde", "show", "--set", f"dwcp.hde.dictionary={path}")
    assert status == 1
    assert f"not used: cannot use the dictionary {path} for messages: it was cut short" in out
    status, out, _ = run("hde", "show", "--json", "--set", f"dwcp.hde.dictionary={path}")
    assert status == 1
    found = json.loads(out)
    assert [one["id"] for one in found["messages"]["dictionaries"]] == [1]
    assert "[dwcp.hde.dictionary]" in found["messages"]["faults"][0]
    assert found["settings"]["dwcp.hde.dictionary"] == str(path)


def test_a_codec_that_is_missing_is_shown_with_the_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hde, "missing", lambda codec: "no liblz4" if codec == "lz4" else "")
    status, out, _ = run("hde", "show")
    assert status == 1
    assert "no liblz4" in out

    def fail(codec: str) -> str:
        raise NativeUnavailableError("the extension cannot be used", why="it was not built")

    monkeypatch.setattr(hde, "version", fail)
    status, out, _ = run("hde", "show", "--json")
    assert status == 1
    assert "it was not built" in json.loads(out)["codecs"][0]["why"]


def test_a_dictionary_is_trained_and_says_what_it_gains(
    run: Run, samples: Path, tmp_path: Path
) -> None:
    output = tmp_path / "own.zdict"
    arguments = ("hde", "train", "--samples", str(samples), "--output", str(output))
    status, out, _ = run(*arguments, "--size", "4096")
    assert status == 0
    made = read_dictionary(output)
    assert made.retrained
    assert len(made.content) == 4096
    assert f"dictionary {made.id} of 4096 bytes" in out
    assert "messages that it was not made from" in out
    assert output.stat().st_mode & 0o777 == 0o600
    _, out, _ = run(*arguments, "--json")
    found = json.loads(out)
    gain = found["held_out"]
    assert found["bytes"] == 8192
    assert 0 < gain["trained"] < gain["plain"]
    assert 0 < gain["shipped"] < gain["plain"]


def test_too_few_messages_are_refused_with_what_is_needed(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "few", 30)
    output = tmp_path / "own.zdict"
    status, _, err = run(
        "hde", "train", "--samples", str(tmp_path / "few"), "--output", str(output)
    )
    assert status == 1
    assert "it takes 100 messages" in err
    assert not output.exists()


def test_a_place_that_cannot_be_written_is_an_error(
    run: Run, samples: Path, tmp_path: Path
) -> None:
    output = tmp_path / "none" / "own.zdict"
    status, _, err = run("hde", "train", "--samples", str(samples), "--output", str(output))
    assert status == 1
    assert f"cannot write {output}" in err


def test_messages_that_the_node_kept_are_trained_from(
    run: Run, node: DataDirectory, tmp_path: Path
) -> None:
    output = tmp_path / "own.zdict"
    arguments = ("hde", "train", "--from-traffic", "--output", str(output))
    arguments += ("--data-dir", str(node.root))
    status, _, err = run(*arguments)
    assert status == 1
    assert "the node has kept none" in err
    assert "dwcp.hde.keep_messages" in err
    write(node.root / "dwcp" / "messages")
    assert run(*arguments)[0] == 0
    assert read_dictionary(output).retrained

"""What operators write about transfers: NODE:PATH, rates, paths of this host."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.cli.transfer_arguments import (
    TransferArgumentError,
    codec,
    local_path,
    rate,
    split_sources,
    split_target,
)


@pytest.mark.parametrize(
    ("text", "node", "path"),
    [
        ("node-2:/srv/a", "node-2", "/srv/a"),
        ("node-2:a", "node-2", "a"),
        ("node-2:", "node-2", "./"),
        ("7669cb21:in/a:b", "7669cb21", "in/a:b"),
        ("192.0.2.1:7401:in/", "192.0.2.1:7401", "in/"),
        ("host:7401:", "host:7401", "./"),
        ("host:7401", "host", "7401"),
        ("host:a7:b", "host", "a7:b"),
        ("host:./7:b", "host", "./7:b"),
        ("host::b", "host", ":b"),
        ("[2001:db8::2]:in", "[2001:db8::2]", "in"),
        ("[2001:db8::2]:7401:/in", "[2001:db8::2]:7401", "/in"),
        ("[2001:db8::2]:", "[2001:db8::2]", "./"),
        ("host:\u0661:b", "host", "\u0661:b"),
    ],
)
def test_a_node_ends_at_the_first_colon_unless_a_port_follows(
    text: str, node: str, path: str
) -> None:
    assert split_target(text) == (node, path)


@pytest.mark.parametrize(
    "text", ["", "a", "/srv/a", ":", ":a", "[::1]", "[::1", "[]:a", "[::1]a:b"]
)
def test_what_names_no_node_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(TransferArgumentError) as caught:
        split_target(text)
    assert "NODE:PATH" in caught.value.why
    assert "node-2:/srv/images/" in caught.value.remedy


@given(st.text(max_size=30))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        node, path = split_target(text)
    except TransferArgumentError:
        return
    assert node
    assert path
    assert text == f"{node}:{path}" or text == f"{node}:"


def test_sources_come_from_one_node() -> None:
    assert split_sources(["n:a", "n:b"]) == ("n", ["a", "b"])
    with pytest.raises(TransferArgumentError) as caught:
        split_sources(["n:a", "m:b"])
    assert caught.value.why == "m and n are named"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a", "{}/a"),
        ("./a", "{}/a"),
        ("sub/../a", "{}/a"),
        ("sub/a/", "{}/sub/a/"),
        (".", "{}/."),
        ("./", "{}/."),
        ("sub/.", "{}/sub/."),
        ("link/.", "{}/sub/."),
        ("sub/..", "{}/."),
        ("link", "{}/link"),
        ("link/a", "{}/sub/a"),
        ("link/../a", "{}/a"),
        ("/", "/."),
        ("//", "/."),
    ],
)
def test_a_path_is_made_absolute_as_the_kernel_would_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    root = tmp_path.resolve()
    (root / "sub").mkdir()
    (root / "link").symlink_to("sub")
    monkeypatch.chdir(root)
    assert local_path(text) == found.format(root)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(TransferArgumentError):
        local_path("")


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("0", 0),
        ("none", 0),
        ("500", 500),
        ("500k", 500_000),
        ("500K", 500_000),
        ("10M", 10_000_000),
        ("10MB/s", 10_000_000),
        ("1.5G", 1_500_000_000),
        (".5G", 500_000_000),
        ("64MiB", 67_108_864),
        ("64Ki", 65_536),
        ("800Mbit", 100_000_000),
        ("1Gibit/s", 134_217_728),
        ("1T", 10**12),
    ],
)
def test_a_rate_is_bytes_unless_it_says_bits(text: str, bytes_per_second: int) -> None:
    assert rate(text) == bytes_per_second


@pytest.mark.parametrize(
    "text",
    ["", "fast", "-1", "1e9", "10b", "10Mb", "10i", "7bit", "1 000", "1M/m", "0.1", "9" * 20],
)
def test_a_rate_that_is_none_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="800Mbit"):
        rate(text)


@pytest.mark.parametrize("text", ["auto", "off", "lz4", "zstd", "zstd:-7", "zstd:19"])
def test_a_codec_is_passed_on_as_it_was_written(text: str) -> None:
    assert codec(text) == text


@pytest.mark.parametrize("text", ["", "gzip", "zstd:20", "zstd:-8", "lz4:1", "zstd:x", "off:3"])
def test_a_codec_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"zstd:LEVEL from -7 to 19"):
        codec(text)

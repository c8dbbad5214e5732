"""What two real nodes encode, and what they say of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from novacron.units import MIB
from tests.integration.node_process import ask
from tests.integration.two_nodes import Pair, digest


def text_file(path: Path, size: int) -> Path:
    """Of lines that look alike and are not: any codec makes them several times smaller."""
    lines = [f"{n:08} session {n % 977} of node {n % 31} opened\n" for n in range(size // 30)]
    path.write_text("".join(lines)[:size])
    return path


def test_what_was_encoded_is_told_by_both_nodes_and_kept_over_a_restart(
    nodes: Pair, tmp_path: Path
) -> None:
    one, two = nodes
    path = text_file(tmp_path / "log.txt", 12 * MIB)
    one.run("send", str(path), f"{two.peer}:in/", "--codec", "zstd:1")
    assert digest(two.transfers / "in" / "log.txt") == digest(path)
    [sent] = one.json("transfers", "list")["transfers"]
    coding = sent["coding"]
    assert coding["zstd"]["bytes"] == coding["bytes"] == path.stat().st_size
    assert coding["ratio"] > 3
    assert sent["wire_bytes"] < sent["bytes_moved"] / 3
    assert coding["cpu_seconds"]["encode"] > 0
    [received] = two.json("transfers", "list")["transfers"]
    assert received["coding"]["zstd"]["bytes"] == path.stat().st_size
    assert received["coding"]["cpu_seconds"]["decode"] > 0
    shown = one.run("transfers", "show", sent["id"])
    assert "ON THE WIRE" in shown
    assert "CPU: " in shown
    one.kill()
    one.start()
    [kept] = one.json("transfers", "list")["transfers"]
    assert kept["coding"] == coding


def test_what_is_sent_with_codec_off_is_as_large_on_the_wire_as_it_is(
    nodes: Pair, tmp_path: Path
) -> None:
    one, two = nodes
    path = text_file(tmp_path / "secret.txt", 4 * MIB)
    one.run("send", str(path), f"{two.peer}:in/", "--codec", "off")
    [sent] = one.json("transfers", "list")["transfers"]
    assert sent["wire_bytes"] > sent["bytes_total"] == 4 * MIB
    assert sent["coding"]["zstd"]["chunks"] == sent["coding"]["lz4"]["chunks"] == 0
    assert digest(two.transfers / "in" / "secret.txt") == digest(path)


def test_messages_about_many_files_are_encoded_and_counted(nodes: Pair, tmp_path: Path) -> None:
    one, two = nodes
    directory = tmp_path / "many"
    directory.mkdir()
    for number in range(300):
        (directory / f"part-{number:04}.bin").write_bytes(os.urandom(200))
    one.run("send", "-r", str(directory), f"{two.peer}:in/")
    _, text = ask(f"127.0.0.1:{one.ports['monitoring']}", "/metrics")
    lines = [
        line for line in text.decode().splitlines() if line.startswith("novacron_dwcp_message")
    ]
    counted = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    sent = counted['novacron_dwcp_message_bytes_total{direction="sent"}']
    saved = counted['novacron_dwcp_message_saved_bytes_total{direction="sent"}']
    assert 0 < saved < sent
    assert json.loads(one.run("hde", "show", "--json"))["messages"]["dictionaries"][0]["id"] == 1

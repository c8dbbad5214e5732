"""What two real nodes agree on: protocol and encryption, and what they say of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from novacron.units import MIB
from tests.integration.node_process import REPOSITORY
from tests.integration.two_nodes import Pair, digest, sparse_image, start_both


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_image(tmp_path / "disk.img", 64 * MIB, (MIB + 5, 3 * MIB), (40 * MIB, 4 * MIB))


def test_version_1_that_was_asked_for_is_healthy_and_told_of(stopped: Pair, image: Path) -> None:
    one, two = stopped
    two.settings["dwcp.amst.protocol"] = "v1"
    start_both(*stopped)
    states = {each["name"]: each["state"] for each in two.ask("components")["components"]}
    assert states["dwcp"] == "ready"
    one.run("send", str(image), f"{two.peer}:")
    [link] = one.ask("dwcp")["links"]
    assert (link["protocol"], link["mover"], link["encrypted"]) == (1, "tls", True)
    assert two.ask("dwcp")["protocol"] == {"wanted": "v1", "got": "v1", "why": ""}
    assert digest(two.transfers / "disk.img") == digest(image)


def test_a_node_without_its_extension_moves_files_both_ways_and_says_what_is_wrong(
    stopped: Pair, image: Path, tmp_path: Path
) -> None:
    one, two = stopped
    shutil.copytree(
        REPOSITORY / "novacron",
        tmp_path / "copy" / "novacron",
        ignore=shutil.ignore_patterns("*.so", "*.pyc.*"),
    )
    two.repository = tmp_path / "copy"
    start_both(*stopped)
    dwcp = next(c for c in two.ask("components")["components"] if c["name"] == "dwcp")
    assert dwcp["state"] == "degraded"
    assert two.process is not None
    said = two.process.text() + two.process.output()
    assert "protocol version 3 cannot run" in said
    assert "No module named 'novacron._native._nc'" in said
    assert "make install" in said
    protocol = two.ask("dwcp")["protocol"]
    assert (protocol["wanted"], protocol["got"]) == ("auto", "v1")
    assert "novacron._native._nc" in protocol["why"]
    one.run("send", str(image), f"{two.peer}:there.img")
    two.run("send", str(image), f"{one.peer}:back.img")
    assert one.ask("transfers")["transfers"][0]["protocol"] == 1
    assert digest(two.transfers / "there.img") == digest(image)
    assert digest(one.transfers / "back.img") == digest(image)
    assert (two.transfers / "there.img").stat().st_blocks * 512 < 16 * MIB


@pytest.mark.parametrize("off_at", [1, 2], ids=["one of them", "both"])
def test_encryption_is_left_out_only_where_both_nodes_have_it_off(
    stopped: Pair, image: Path, off_at: int
) -> None:
    one, two = stopped
    for node in stopped[:off_at]:
        node.settings |= {"dwcp.mode": "datacenter", "dwcp.amst.encryption": "off"}
    start_both(*stopped)
    one.run("send", str(image), f"{two.peer}:")
    encrypted = off_at == 1
    for node in stopped:
        assert node.ask("transfers")["transfers"][0]["encrypted"] is encrypted
        assert node.ask("dwcp")["links"][0]["encrypted"] is encrypted
    assert one.ask("dwcp")["encryption"]["wanted"] == "off"
    out = one.run("dwcp")
    assert f", {'encrypted' if encrypted else 'not encrypted'}, " in out
    if encrypted:
        assert one.ask("dwcp")["links"][0]["why"] == "encrypted: the answering node wants it"
    assert digest(two.transfers / "disk.img") == digest(image)


def test_encryption_cannot_be_off_between_datacenters(stopped: Pair) -> None:
    one, _ = stopped
    one.settings |= {"dwcp.amst.encryption": "off"}
    process = one.launch()
    assert process.wait_exit() != 0
    assert "dwcp.amst.encryption" in process.text()

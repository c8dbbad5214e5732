"""``novacron keys``."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.cli.booted import Booted


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    return Booted(tmp_path / "node", capsys)


def test_a_rotation_is_taken_over_by_the_running_node(node: Booted) -> None:
    ring = node.security.keyring
    old = ring.encrypt(b"x", b"c")
    before = node.json("keys", "status")
    after = node.json("keys", "rotate")
    assert before["active"] != after["active"]
    assert ring.encrypt(b"y", b"c")[1:9].hex() == after["active"]
    assert ring.decrypt(old, b"c") == b"x"
    assert after["active"] in node.run("keys", "status")
    assert node.actions()[-1] == "key.rotate"


def test_a_new_master_key_takes_the_place_of_the_old_one(node: Booted) -> None:
    sealed = node.security.keyring.encrypt(b"x", b"c")
    path = node.directory.secrets / "master.key"
    old = path.read_bytes()
    shown = node.run("keys", "rotate", "--master")
    assert "Copy it elsewhere again" in shown
    assert path.read_bytes() != old
    assert path.read_text().strip() not in shown
    assert node.security.keyring.decrypt(sealed, b"c") == b"x"
    assert node.actions()[-1] == "key.rotate_master"


def test_the_master_key_can_move_to_a_reference(node: Booted, tmp_path: Path) -> None:
    target = tmp_path / "new.key"
    target.write_bytes(base64.b64encode(os.urandom(32)))
    target.chmod(0o600)
    shown = node.run("keys", "rotate", "--master", "--to", f"file:{target}")
    assert "Set security.master_key to it and reload" in shown
    both = node.json("keys", "status")
    assert both["opened_by"] == [f"file:{node.directory.secrets / 'master.key'}", f"file:{target}"]
    node.run("keys", "status", "--set", f"security.master_key=file:{target}")


@pytest.mark.parametrize("action", [("rotate", "--master"), ("init",)])
@pytest.mark.parametrize(
    "pasted",
    ["cGFzdGVkLXNlY3JldC1vZi10aGUtdGVzdHM=", "pkcs11:token=t;object=o;pin-value=pasted-1234"],
)
def test_a_secret_in_the_place_of_its_reference_is_not_put_on_record(
    node: Booted, action: tuple[str, ...], pasted: str
) -> None:
    before = node.actions()
    shown = node.run("keys", *action, "--to", pasted, fails=1)
    assert pasted not in shown
    assert node.actions() == before


def test_to_without_master_is_refused(node: Booted) -> None:
    assert "add --master" in node.run("keys", "rotate", "--to", "env:KEY", fails=1)


def test_a_lost_master_key_is_reported_and_nothing_is_made(node: Booted) -> None:
    (node.directory.secrets / "master.key").unlink()
    shown = node.run("keys", "status", fails=1)
    assert "cannot find the master key" in shown
    assert "lost-master-key" in shown
    assert not (node.directory.secrets / "master.key").exists()

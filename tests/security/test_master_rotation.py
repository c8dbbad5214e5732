"""Replacing the master key: within and between providers, cut short anywhere, beside a running node."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.servers.softhsm import SoftHsm
from novacron.security import documents
from novacron.security.errors import KeyModuleAwayError, KeyringError
from novacron.security.keyring import Keyring
from novacron.security.module_options import ModuleOptions
from novacron.security.providers import provider_for
from tests.security.keyring_version_1 import write_version_1
from tests.security.stand_ins import prepared

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def token(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SoftHsm, ModuleOptions]]:
    with SoftHsm() as hsm:
        for name, value in hsm.environment.items():
            monkeypatch.setenv(name, value)
        options = ModuleOptions(hsm.settings["pkcs11_module"], hsm.settings["pkcs11_pin"], 20.0)
        provider_for(hsm.reference, options).make_master_key(hsm.reference)
        yield hsm, options


def key_file(path: Path) -> str:
    path.write_bytes(base64.b64encode(os.urandom(32)))
    path.chmod(0o600)
    return f"file:{path}"


def opened(root: Path, reference: str = "file:", options: ModuleOptions | None = None) -> Keyring:
    ring = Keyring(prepared(root), reference, options=options)
    ring.open()
    return ring


def killed_everywhere(scenario: str, root: Path, other: str, **environment: str) -> int:
    result = subprocess.run(
        [sys.executable, "-m", "tests.security.rotation_killer", scenario, str(root), other],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return int(json.loads(result.stdout)["steps"])


@pytest.mark.parametrize(
    ("scenario", "writes"),
    [("in_place", 16), ("to_reference", 6), ("taken_over", 6), ("upgraded", 6)],
)
def test_a_rotation_killed_before_any_of_its_writes_leaves_a_keyring_that_opens(
    tmp_path: Path, scenario: str, writes: int
) -> None:
    other = key_file(tmp_path / "other.key")
    assert killed_everywhere(scenario, tmp_path, other) >= writes


@pytest.mark.parametrize("scenario", ["to_reference", "taken_over"])
def test_so_does_one_into_a_hardware_module(
    tmp_path: Path, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with token(monkeypatch) as (hsm, options):
        steps = killed_everywhere(
            scenario, tmp_path, hsm.reference, MODULE=str(options.module), PIN=str(options.pin)
        )
    assert steps >= 6


def test_the_running_node_needs_neither_master_key_while_one_replaces_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with token(monkeypatch) as (hsm, options):
        running = opened(tmp_path, options=options)
        sealed = running.encrypt(b"x", b"c")
        opened(tmp_path, options=options).rotate_master(hsm.reference)
        hsm.remove()
        (tmp_path / "secrets/master.key").rename(tmp_path / "away")
        assert running.decrypt(sealed, b"c") == b"x"
        running.rotate()
        assert running.decrypt(running.encrypt(b"y", b"c"), b"c") == b"y"
        with pytest.raises(KeyModuleAwayError):
            running.take_over(hsm.reference, options)
        assert running.status()["master_key"] == f"file:{tmp_path / 'secrets/master.key'}"
        assert running.decrypt(running.encrypt(b"z", b"c"), b"c") == b"z"
        hsm.insert()
        running.take_over(hsm.reference, options)
        assert running.status()["opened_by"] == [hsm.reference]
        later = opened(tmp_path, hsm.reference, options)
        assert later.decrypt(sealed, b"c") == b"x"


def test_the_old_master_key_and_an_old_copy_of_the_file_open_nothing_new(tmp_path: Path) -> None:
    """Whoever stole both before the rotation has the ring key of then. It is another one now."""
    ring = opened(tmp_path)
    stolen = ring._opened()
    other = key_file(tmp_path / "other.key")
    ring.rotate_master(other)
    ring.take_over(other)
    ring.rotate()
    for key in ring._keys.values():
        with pytest.raises(ValueError, match="does not open"):
            stolen.unwrap(key.wrapped, key.context())


def test_a_rotation_nobody_took_over_is_replaced_by_the_next(tmp_path: Path) -> None:
    ring = opened(tmp_path / "node")
    first, second = (key_file(tmp_path / name) for name in ("first.key", "second.key"))
    ring.rotate_master(first)
    ring.rotate_master(second)
    with pytest.raises(KeyringError, match="not the master key"):
        opened(tmp_path / "node", first)
    assert ring.status()["opened_by"][1] == second
    with pytest.raises(KeyringError, match="is none that opens the keyring"):
        ring.take_over(first)
    ring.take_over(second)
    assert opened(tmp_path / "node", second)


def test_a_node_that_boots_with_the_old_reference_leaves_the_new_one_in_place(
    tmp_path: Path,
) -> None:
    other = key_file(tmp_path / "other.key")
    opened(tmp_path).rotate_master(other)
    ring = opened(tmp_path)
    assert not ring.settle()
    assert ring.unsettled()
    moved = opened(tmp_path, other)
    assert moved.settle()
    assert not moved.unsettled()
    assert not moved.settle()


def test_a_slot_that_was_exchanged_by_somebody_is_noticed(tmp_path: Path) -> None:
    """Whoever can write the file and has a master key of their own cannot have it trusted."""
    ring = opened(tmp_path / "node")
    body = documents.decode(ring.path.read_bytes())
    stranger = opened(tmp_path / "stranger")
    foreign = documents.decode(stranger.path.read_bytes())
    body["slots"].append(foreign["slots"][0])
    ring.path.write_bytes(documents.encode(body))
    with pytest.raises(KeyringError, match="without the master key has changed it"):
        opened(tmp_path / "node")


def test_a_keyring_of_the_first_release_is_opened_and_brought_up_to_date(tmp_path: Path) -> None:
    ring = opened(tmp_path)
    sealed = ring.encrypt(b"x", b"c")
    write_version_1(tmp_path)
    looked = Keyring(prepared(tmp_path))
    looked.open(create=False)
    assert looked.decrypt(sealed, b"c") == b"x"
    assert documents.decode(looked.path.read_bytes())["version"] == 1, "looking changes nothing"
    booted = opened(tmp_path)
    assert booted.decrypt(sealed, b"c") == b"x"
    assert documents.decode(booted.path.read_bytes())["version"] == 2
    (tmp_path / "secrets/master.key").write_bytes(base64.b64encode(os.urandom(32)))
    with pytest.raises(KeyringError, match="is not the master key it was made with"):
        opened(tmp_path)


def test_a_data_key_is_rotated_in_a_keyring_of_the_first_release(tmp_path: Path) -> None:
    """By the command line, before the node of this release has booted on it."""
    sealed = opened(tmp_path).encrypt(b"x", b"c")
    write_version_1(tmp_path)
    operator = Keyring(prepared(tmp_path))
    operator.open(create=False)
    operator.rotate()
    later = opened(tmp_path)
    assert later.decrypt(sealed, b"c") == b"x"
    assert len(later.status()["keys"]) == 2


def test_a_node_whose_keyring_somebody_spoils_goes_on_with_the_keys_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = opened(tmp_path)
    sealed = ring.encrypt(b"x", b"c")
    good = ring.path.read_bytes()
    ring.path.write_bytes(b"{")
    for _ in range(3):
        assert ring.decrypt(ring.encrypt(b"y", b"c"), b"c") == b"y"
    assert caplog.text.count("the keys read before stay in use") == 1
    assert ring.decrypt(sealed, b"c") == b"x"
    with pytest.raises(KeyringError, match="it is not JSON"):
        ring.rotate()
    assert ring.path.read_bytes() == b"{", "what cannot be read is not overwritten"
    ring.path.write_bytes(good)
    ring.rotate()
    assert opened(tmp_path).decrypt(sealed, b"c") == b"x"


def test_a_wrong_key_is_not_taken_for_that_of_the_first_release(tmp_path: Path) -> None:
    opened(tmp_path)
    write_version_1(tmp_path)
    (tmp_path / "secrets/master.key").write_bytes(base64.b64encode(os.urandom(32)))
    before = (tmp_path / "secrets/keyring.json").read_bytes()
    with pytest.raises(KeyringError, match="is not the master key it was made with"):
        opened(tmp_path)
    assert (tmp_path / "secrets/keyring.json").read_bytes() == before

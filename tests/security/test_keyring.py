"""The keyring: what it opens, what it refuses, and that it never destroys what it cannot read."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.data_directory import DataDirectory
from novacron.security import documents, keyring, stored_keyring
from novacron.security.errors import KeyringError, SecretReferenceError, StorageFailedError
from novacron.security.keyring import MESSAGE_BLOCK, MESSAGE_LIMIT, Keyring
from tests.security.stand_ins import prepared

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


def opened(directory: DataDirectory, **arguments: object) -> Keyring:
    ring = Keyring(directory, **arguments)  # type: ignore[arg-type]
    ring.open()
    return ring


def test_what_is_sealed_is_opened_by_a_later_process_for_the_same_purpose_only(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path)
    sealed = opened(directory).encrypt(b"attack at dawn", b"purpose")
    later = opened(directory)
    assert later.decrypt(sealed, b"purpose") == b"attack at dawn"
    with pytest.raises(KeyringError, match="encrypted for another purpose"):
        later.decrypt(sealed, b"another")
    assert b"attack" not in sealed


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return opened(prepared(tmp_path_factory.mktemp("ring")))


@given(plaintext=st.binary(max_size=300), context=st.binary(max_size=60))
def test_any_bytes_come_back_under_any_context(
    ring: Keyring, plaintext: bytes, context: bytes
) -> None:
    sealed = ring.encrypt(plaintext, context)
    assert ring.decrypt(sealed, context) == plaintext
    assert ring.encrypt(plaintext, context) != sealed


@given(data=st.data())
def test_a_ciphertext_with_any_bit_flipped_is_refused(ring: Keyring, data: st.DataObject) -> None:
    sealed = bytearray(ring.encrypt(b"payload", b"c"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(KeyringError):
        ring.decrypt(bytes(sealed), b"c")


@given(st.binary(max_size=100))
def test_bytes_that_are_no_ciphertext_are_a_clear_error(ring: Keyring, data: bytes) -> None:
    with pytest.raises(KeyringError) as caught:
        ring.decrypt(data, b"c")
    assert caught.value.why
    assert caught.value.remedy


def test_a_rotated_keyring_seals_with_the_new_key_and_opens_what_the_old_one_sealed(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path)
    ring = opened(directory)
    old = ring.encrypt(b"old", b"c")
    id = ring.rotate()
    new = ring.encrypt(b"new", b"c")
    assert new[1:9].hex() == id != old[1:9].hex()
    later = opened(directory)
    assert later.decrypt(old, b"c") == b"old"
    assert later.decrypt(new, b"c") == b"new"
    assert len(later.status()["keys"]) == 2


def test_a_data_key_is_replaced_when_it_is_old_enough_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    ring = opened(prepared(tmp_path), rotation_days=90, now=clock)
    clock.time += 89 * DAY
    assert ring.rotate_if_due() is None
    clock.time += 1 * DAY
    assert ring.rotate_if_due() == ring.status()["active"]
    assert ring.rotate_if_due() is None


def test_a_key_that_has_sealed_all_the_messages_it_may_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "MESSAGE_BLOCK", 4)
    monkeypatch.setattr(keyring, "MESSAGE_LIMIT", 8)
    ring = opened(prepared(tmp_path))
    ids = [ring.encrypt(b"", b"")[1:9] for _ in range(20)]
    counts = [ids.count(id) for id in dict.fromkeys(ids)]
    assert counts == [8, 8, 4]


def test_a_restart_never_uses_messages_that_were_reserved_before(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    for boots in range(1, 4):
        ring = opened(directory)
        ring.encrypt(b"", b"")
        assert ring.status()["keys"][0]["messages_reserved"] == boots * MESSAGE_BLOCK
    assert MESSAGE_LIMIT == 2**32


def test_the_messages_of_a_first_boot_are_reserved_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "MESSAGE_BLOCK", 3)
    ring = opened(prepared(tmp_path))
    first = ring.path.read_bytes()
    for _ in range(3):
        ring.encrypt(b"", b"")
    assert ring.path.read_bytes() == first, "no second write, no second wait for the disk"
    ring.encrypt(b"", b"")
    assert ring.status()["keys"][0]["messages_reserved"] == 6
    # What a process has reserved and not used is lost with it, never used twice.
    assert opened(prepared(tmp_path)).status()["keys"][0]["messages_reserved"] == 6


def test_a_running_node_takes_over_what_another_process_rotated(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    running, other = opened(directory), opened(directory)
    id = other.rotate()
    sealed = other.encrypt(b"x", b"c")
    assert running.decrypt(sealed, b"c") == b"x"
    assert running.encrypt(b"y", b"c")[1:9].hex() == id
    other.rotate_master()
    assert running.encrypt(b"z", b"c")[1:9].hex() == id
    assert other.decrypt(running.encrypt(b"z", b"c"), b"c") == b"z"


def test_a_new_master_key_opens_everything_and_the_old_one_nothing(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    ring = opened(directory)
    sealed = ring.encrypt(b"x", b"c")
    ring.rotate()
    old = (directory.secrets / "master.key").read_bytes()
    ring.rotate_master()
    assert opened(directory).decrypt(sealed, b"c") == b"x"
    assert not (directory.secrets / "master.key.next").exists()
    (directory.secrets / "master.key").write_bytes(old)
    with pytest.raises(KeyringError, match="is not the master key it was made with"):
        Keyring(directory).open()


@pytest.mark.parametrize("cut", ["before the keyring", "after the keyring"])
def test_a_master_rotation_that_is_cut_short_is_finished_or_forgotten(
    tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepared(tmp_path)
    ring = opened(directory)
    sealed = ring.encrypt(b"x", b"c")

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    if cut == "before the keyring":
        monkeypatch.setattr(ring, "_write", die)
    else:
        monkeypatch.setattr(ring._source, "adopt_next", die)
    with pytest.raises(Killed):
        ring.rotate_master()
    assert (directory.secrets / "master.key.next").exists()
    assert opened(directory).decrypt(sealed, b"c") == b"x"
    assert not (directory.secrets / "master.key.next").exists()
    assert opened(directory).decrypt(sealed, b"c") == b"x"


def test_the_master_key_can_move_to_a_reference_and_is_not_ours_to_replace_then(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path / "node")
    ring = opened(directory)
    sealed = ring.encrypt(b"x", b"c")
    target = tmp_path / "elsewhere.key"
    target.write_bytes(base64.b64encode(os.urandom(32)))
    target.chmod(0o600)
    ring.rotate_master(f"file:{target}")
    moved = opened(directory, reference=f"file:{target}")
    assert moved.decrypt(sealed, b"c") == b"x"
    with pytest.raises(KeyringError, match="not the node's to write"):
        moved.rotate_master()


def test_a_lost_master_key_is_reported_and_no_new_one_is_made(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    opened(directory)
    (directory.secrets / "master.key").unlink()
    before = (directory.secrets / "keyring.json").read_bytes()
    with pytest.raises(KeyringError) as caught:
        Keyring(directory).open()
    assert "cannot find the master key" in caught.value.what
    assert "lost-master-key" in caught.value.remedy
    assert not (directory.secrets / "master.key").exists()
    assert (directory.secrets / "keyring.json").read_bytes() == before


def test_another_nodes_master_key_is_reported_and_nothing_is_written(tmp_path: Path) -> None:
    directory, other = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    opened(directory)
    opened(other)
    foreign = (other.secrets / "master.key").read_bytes()
    (directory.secrets / "master.key").write_bytes(foreign)
    before = (directory.secrets / "keyring.json").read_bytes()
    with pytest.raises(KeyringError) as caught:
        Keyring(directory).open()
    assert "is not the master key it was made with" in caught.value.why
    assert foreign.decode().strip() not in str(caught.value)
    assert (directory.secrets / "keyring.json").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"", "it is empty"),
        (b"\0" * 512, "it is empty"),
        (b"{", "it is not JSON"),
        (b"[1]", "it is not a JSON object"),
        (b'{"version": 1}', "its checksum does not match"),
    ],
)
def test_a_damaged_keyring_is_left_as_it_is(tmp_path: Path, damage: bytes, why: str) -> None:
    directory = prepared(tmp_path)
    opened(directory)
    path = directory.secrets / "keyring.json"
    path.write_bytes(damage)
    with pytest.raises(KeyringError) as caught:
        Keyring(directory).open()
    assert caught.value.why == why
    assert "backup" in caught.value.remedy
    assert path.read_bytes() == damage


@given(data=st.data())
def test_a_keyring_with_any_bit_flipped_opens_never_and_is_never_written(
    ring: Keyring, data: st.DataObject
) -> None:
    good = ring.path.read_bytes()
    bad = bytearray(good)
    bit = data.draw(st.integers(0, len(bad) * 8 - 1))
    bad[bit // 8] ^= 1 << (bit % 8)
    ring.path.write_bytes(bad)
    try:
        with pytest.raises(KeyringError):
            Keyring(ring._directory).open()
        assert ring.path.read_bytes() == bytes(bad)
    finally:
        ring.path.write_bytes(good)


def test_a_keyring_changed_by_somebody_without_the_master_key_is_not_trusted(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path)
    ring = opened(directory)
    body = documents.decode(ring.path.read_bytes())
    body["keys"][0]["created"] = documents.to_text(4_000_000_000)
    ring.path.write_bytes(documents.encode(body))
    with pytest.raises(KeyringError, match="without the master key has changed it"):
        Keyring(directory).open()


def test_a_missing_keyring_is_not_made_anew_once_there_are_data_under_it(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    opened(directory).path.unlink()
    (directory.pki / "ca.key").write_bytes(b"sealed")
    with pytest.raises(KeyringError, match="the keys to it are gone"):
        Keyring(directory).open()
    assert not (directory.secrets / "keyring.json").exists()


def test_a_disk_that_refuses_leaves_the_keyring_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepared(tmp_path)
    ring = opened(directory)
    active = ring.status()["active"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stored_keyring, "write_durably", full)
        with pytest.raises(StorageFailedError, match="the disk is full"):
            ring.rotate()
    ring.encrypt(b"x", b"c")
    assert ring.status()["active"] == active


def test_a_master_key_that_others_can_read_stops_the_boot(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    opened(directory)
    (directory.secrets / "master.key").chmod(0o644)
    with pytest.raises(SecretReferenceError, match="chmod 600"):
        Keyring(directory).open()


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    ring = opened(directory)
    ring.encrypt(b"x", b"c")
    master = (directory.secrets / "master.key").read_text().strip()
    wrapped = json.loads(ring.path.read_bytes())["keys"][0]["wrapped"]
    shown = f"{ring!r} {ring.status()} {ring._ring!r} {list(ring._keys.values())!r}"
    for secret in (master, base64.b64decode(master).hex(), wrapped):
        assert secret not in shown

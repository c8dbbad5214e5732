"""What every :class:`novacron.security.providers.SecretProvider` must do. Each case gets a *vault*
with two master keys in it, as the machine of a node would have them."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novacron.errors import InvalidError, NovaCronError, TransientError
from novacron.security.errors import KeyringError, SecretReferenceError
from novacron.security.keyring import Keyring
from novacron.security.master import MasterKey, Slot
from novacron.security.module_options import ModuleOptions
from novacron.security.providers import SecretProvider, provider_for
from novacron.security.ring_key import RingKey
from tests.security.stand_ins import prepared


class Vault(ABC):
    """A provider with something in it."""

    first: str
    """Reference of a master key."""
    second: str
    """Reference of another."""
    hands_out = True
    """Whether secrets can be read from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ: dict[str, str] = {}
        self.options = ModuleOptions()

    def provider(self) -> SecretProvider:
        """As a process that has just started has it."""
        return provider_for(self.first, self.options, self.environ)

    def key(self, reference: str) -> MasterKey:
        return self.provider().open_master_key(reference)

    def keyring(self, root: Path, reference: str) -> Keyring:
        directory = prepared(root)
        return Keyring(directory, reference, options=self.options, environ=self.environ)

    @abstractmethod
    def take_away(self) -> None:
        """Nothing in the vault can be got at any more."""

    @abstractmethod
    def give_back(self) -> None: ...

    @abstractmethod
    def secrets(self) -> list[bytes]:
        """What must never show."""

    def replace(self, secret: bytes) -> None:
        """Put *secret* where :attr:`first` leads; only where :attr:`hands_out`."""
        raise AssertionError

    def free_reference(self) -> str | None:
        """A reference that leads nowhere, where a key can be made; None where none can."""
        return None


Case = Callable[[Vault], None]


def what_a_key_seals_it_opens_in_a_later_process(vault: Vault) -> None:
    ring = RingKey.new()
    slot = json.loads(json.dumps(vault.key(vault.first).seal(ring)))
    opened = vault.key(vault.first).unseal([slot])
    assert opened is not None
    assert opened[0] == 0
    assert opened[1].key == ring.key


def sealing_twice_gives_two_slots_that_show_nothing_of_it(vault: Vault) -> None:
    ring = RingKey.new()
    key = vault.key(vault.first)
    one, other = key.seal(ring), key.seal(ring)
    assert one["sealed"] != other["sealed"]
    for slot in (one, other):
        assert ring.key not in base64.b64decode(slot["sealed"])
        assert slot["reference"] == vault.first


def another_key_opens_nothing_and_finds_its_own_slot(vault: Vault) -> None:
    ring = RingKey.new()
    first, second = vault.key(vault.first), vault.key(vault.second)
    slots = [first.seal(ring), second.seal(ring)]
    assert second.unseal(slots[:1]) is None
    found = second.unseal(slots)
    assert found is not None
    assert (found[0], found[1].key) == (1, ring.key)


def a_slot_that_was_changed_anywhere_opens_nothing(vault: Vault) -> None:
    key = vault.key(vault.first)
    slot = key.seal(RingKey.new())
    sealed = base64.b64decode(slot["sealed"])
    changed: list[Slot] = []
    for index in range(len(sealed)):
        bad = bytearray(sealed)
        bad[index] ^= 1 << (index % 8)
        changed.append({**slot, "sealed": base64.b64encode(bad).decode()})
    shorter = {**slot, "sealed": base64.b64encode(sealed[:-1]).decode()}
    longer = {**slot, "sealed": base64.b64encode(sealed + b"\0").decode()}
    changed += [shorter, longer, {**slot, "sealed": ""}, {**slot, "sealed": "!"}]
    assert key.unseal(changed) is None
    # Not because the key had gone: the right one is still found behind all those.
    found = key.unseal([*changed, slot])
    assert found is not None
    assert found[0] == len(changed)


def a_slot_of_another_kind_is_nobodys(vault: Vault) -> None:
    key = vault.key(vault.first)
    slot = dict(key.seal(RingKey.new()))
    del slot["kind"]
    assert key.unseal([slot, {}, {"kind": "tomorrow", "sealed": "AAAA"}]) is None


def what_is_away_is_reported_and_works_when_it_is_back(vault: Vault) -> None:
    ring = RingKey.new()
    slot = vault.key(vault.first).seal(ring)
    vault.take_away()
    with pytest.raises(NovaCronError) as caught:
        vault.key(vault.first).unseal([slot])
    error = caught.value
    assert isinstance(error, InvalidError | TransientError)
    assert error.why
    assert error.remedy
    assert error.key.startswith("security.")
    for secret in vault.secrets():
        assert secret.decode() not in str(error)
    vault.give_back()
    opened = vault.key(vault.first).unseal([slot])
    assert opened is not None
    assert opened[1].key == ring.key


def nothing_shows_a_key(vault: Vault) -> None:
    ring = RingKey.new()
    key = vault.key(vault.first)
    shown = f"{key!r} {ring!r} {vault.provider()!r} {key.seal(ring)} "
    shown += json.dumps(vault.provider().describe_master_key(vault.first))
    for secret in (*vault.secrets(), ring.key.hex().encode(), base64.b64encode(ring.key)):
        assert secret.decode() not in shown


def a_key_is_made_where_there_is_none_and_never_replaced(vault: Vault) -> None:
    free = vault.free_reference()
    for reference in (vault.first, *([] if free is None else [free])):
        provider = vault.provider()
        if reference == free:
            assert provider.make_master_key(reference)["reference"] == reference
        ring = RingKey.new()
        slot = vault.key(reference).seal(ring)
        with pytest.raises(NovaCronError) as caught:
            provider.make_master_key(reference)
        assert caught.value.remedy
        opened = vault.key(reference).unseal([slot])
        assert opened is not None
        assert opened[1].key == ring.key


def what_is_read_is_what_is_there_now(vault: Vault) -> None:
    provider = vault.provider()
    if not vault.hands_out:
        with pytest.raises(SecretReferenceError, match="stays there"):
            provider.read(vault.first, key="database.postgresql.password")
        return
    for secret in (b"first-password", b"second-password"):
        vault.replace(secret)
        assert provider.read(vault.first, key="database.postgresql.password").strip() == secret


def a_keyring_lives_on_it(vault: Vault) -> None:
    root = vault.root / "node"
    ring = vault.keyring(root, vault.first)
    assert ring.open()
    sealed = ring.encrypt(b"payload", b"purpose")
    later = vault.keyring(root, vault.first)
    assert not later.open()
    assert later.decrypt(sealed, b"purpose") == b"payload"
    with pytest.raises(KeyringError, match="is not the master key it was made with"):
        vault.keyring(root, vault.second).open()
    with pytest.raises(KeyringError, match="is the one in use"):
        later.rotate_master(vault.first)


def a_keyring_moves_to_another_key_of_it_and_back_to_a_file(vault: Vault) -> None:
    root = vault.root / "node"
    running = vault.keyring(root, vault.first)
    running.open()
    sealed = running.encrypt(b"payload", b"purpose")
    vault.keyring(root, vault.first).open()
    operator = vault.keyring(root, vault.first)
    operator.open(create=False)
    operator.rotate_master(vault.second)
    # Either opens it until the node has gone over.
    for reference in (vault.first, vault.second):
        between = vault.keyring(root, reference)
        between.open(create=False)
        assert between.decrypt(sealed, b"purpose") == b"payload"
    assert running.decrypt(running.encrypt(b"x", b"p"), b"p") == b"x"
    running.take_over(vault.second, vault.options)
    with pytest.raises(KeyringError, match="is not the master key it was made with"):
        vault.keyring(root, vault.first).open()
    assert running.decrypt(sealed, b"purpose") == b"payload"
    running.rotate_master("file:")
    running.take_over("file:", vault.options)
    home = vault.keyring(root, "file:")
    home.open()
    assert home.decrypt(sealed, b"purpose") == b"payload"
    assert home.status()["opened_by"] == [f"file:{root / 'secrets/master.key'}"]


CASES: tuple[Case, ...] = (
    what_a_key_seals_it_opens_in_a_later_process,
    sealing_twice_gives_two_slots_that_show_nothing_of_it,
    another_key_opens_nothing_and_finds_its_own_slot,
    a_slot_that_was_changed_anywhere_opens_nothing,
    a_slot_of_another_kind_is_nobodys,
    what_is_away_is_reported_and_works_when_it_is_back,
    nothing_shows_a_key,
    a_key_is_made_where_there_is_none_and_never_replaced,
    what_is_read_is_what_is_there_now,
    a_keyring_lives_on_it,
    a_keyring_moves_to_another_key_of_it_and_back_to_a_file,
)


def names(value: Any) -> str:
    return str(getattr(value, "__name__", value))

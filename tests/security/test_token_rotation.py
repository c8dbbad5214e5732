"""A token that gets a new secret: who is accepted when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from novacron.security import tokens as module
from novacron.security.errors import (
    StorageFailedError,
    TokenInvalidError,
    TokenLimitError,
    TokenNotFoundError,
)
from novacron.security.tokens import Tokens
from tests.security.stand_ins import prepared
from tests.security.tls import Clock

HOUR = 3600.0


class Scene:
    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.directory = prepared(root)
        self.node = self.another()
        self.node.open_blocking()
        self.made = self.node.create_blocking("ci", "operator", 24 * HOUR)

    def another(self) -> Tokens:
        """As another process sees the same file."""
        return Tokens(self.directory, now=self.clock)

    def valid(self, secret: str) -> bool:
        principal = self.node.authenticate(secret)
        assert principal is None or (principal.name, principal.role) == (self.made.id, "operator")
        return principal is not None


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_both_secrets_are_accepted_until_the_grace_is_over(scene: Scene) -> None:
    new = scene.another().rotate_blocking(scene.made.id, HOUR)
    assert new.id == scene.made.id
    assert new.secret != scene.made.secret
    assert (scene.valid(scene.made.secret), scene.valid(new.secret)) == (True, True)
    scene.clock.time += HOUR - 1
    assert (scene.valid(scene.made.secret), scene.valid(new.secret)) == (True, True)
    scene.clock.time += 1
    assert (scene.valid(scene.made.secret), scene.valid(new.secret)) == (False, True)


def test_without_grace_the_old_secret_is_refused_at_once(scene: Scene) -> None:
    new = scene.node.rotate_blocking(scene.made.id, 0)
    assert (scene.valid(scene.made.secret), scene.valid(new.secret)) == (False, True)


def test_a_second_rotation_within_the_grace_refuses_neither_of_the_older_ones(
    scene: Scene,
) -> None:
    secrets = [scene.made.secret]
    for _ in range(4):
        secrets.append(scene.node.rotate_blocking(scene.made.id, HOUR).secret)
        scene.clock.time += 60
    assert all(map(scene.valid, secrets))
    with pytest.raises(TokenLimitError, match="older secrets"):
        scene.node.rotate_blocking(scene.made.id, HOUR)
    assert all(map(scene.valid, secrets)), "what was refused has changed nothing"
    scene.clock.time += HOUR
    assert [scene.valid(secret) for secret in secrets] == [False] * 4 + [True]
    scene.node.rotate_blocking(scene.made.id, HOUR)


def test_a_token_expires_with_all_its_secrets_and_can_be_renewed_before(scene: Scene) -> None:
    new = scene.node.rotate_blocking(scene.made.id, 24 * HOUR)
    scene.clock.time += 23 * HOUR
    renewed = scene.node.rotate_blocking(scene.made.id, HOUR, ttl=48 * HOUR)
    scene.clock.time += 2 * HOUR
    assert not scene.valid(new.secret)
    assert scene.valid(renewed.secret)
    scene.clock.time += 47 * HOUR
    assert not scene.valid(renewed.secret)
    with pytest.raises(TokenNotFoundError, match="it is expired"):
        scene.node.rotate_blocking(scene.made.id, HOUR)


def test_a_revoked_token_is_refused_with_all_its_secrets(scene: Scene) -> None:
    new = scene.node.rotate_blocking(scene.made.id, HOUR)
    scene.node.revoke_blocking(scene.made.id)
    assert (scene.valid(scene.made.secret), scene.valid(new.secret)) == (False, False)
    with pytest.raises(TokenNotFoundError, match="it is revoked"):
        scene.node.rotate_blocking(scene.made.id, HOUR)


def test_what_the_token_may_do_stays(scene: Scene) -> None:
    narrowed = scene.node.create_blocking("acme", "operator", None, ("tenant:acme",))
    new = scene.node.rotate_blocking(narrowed.id, HOUR)
    for secret in (narrowed.secret, new.secret):
        principal = scene.another().authenticate(secret)
        assert principal is not None
        assert principal.resources == ("tenant:acme",)


def test_the_administrators_file_gets_the_new_secret(scene: Scene) -> None:
    before = scene.node.admin_path.read_text().strip()
    id = before.split("_")[1]
    new = scene.node.rotate_blocking(id, HOUR)
    assert scene.node.admin_path.read_text().strip() == new.secret
    assert scene.node.admin_path.stat().st_mode & 0o777 == 0o600
    assert scene.node.authenticate(before) is not None


def test_a_secret_that_was_replaced_and_is_still_in_use_is_counted(scene: Scene) -> None:
    scene.node.rotate_blocking(scene.made.id, HOUR)
    before = module._CHECKS.values.get(("former",), 0)
    assert scene.valid(scene.made.secret)
    assert module._CHECKS.values[("former",)] == before + 1


def test_the_list_and_the_file_hold_no_secret(scene: Scene) -> None:
    new = scene.node.rotate_blocking(scene.made.id, HOUR)
    (listed,) = (token for token in scene.node.list() if token["id"] == scene.made.id)
    assert listed["former_until"] == "2027-01-15T09:00:00.000000Z"
    text = json.dumps(scene.node.list()) + scene.node.path.read_text()
    for secret in (scene.made.secret, new.secret):
        assert secret.split("_", 2)[2] not in text


@pytest.mark.parametrize("grace", [-1.0, 31 * 24 * HOUR, float("nan")])
def test_a_grace_that_makes_no_sense_is_refused(scene: Scene, grace: float) -> None:
    with pytest.raises(TokenInvalidError, match="30 days"):
        scene.node.rotate_blocking(scene.made.id, grace)


def test_a_disk_that_refuses_leaves_the_token_as_it_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", full)
        with pytest.raises(StorageFailedError, match="the disk is full"):
            scene.node.rotate_blocking(scene.made.id, HOUR)
    assert scene.valid(scene.made.secret)
    assert scene.another().authenticate(scene.made.secret) is not None

"""API tokens: what lets somebody in, and what does not any more."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.log.redaction import mask
from novacron.security import Role, documents, tokens
from novacron.security.errors import (
    SecretReferenceError,
    StorageFailedError,
    TokenInvalidError,
    TokenLimitError,
    TokenNotFoundError,
)
from novacron.security.roles import Principal
from novacron.security.tokens import Tokens
from tests.security.stand_ins import prepared


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


def opened(directory: DataDirectory, clock: Clock | None = None) -> Tokens:
    made = Tokens(directory, now=clock) if clock else Tokens(directory)
    made.open_blocking()
    return made


async def test_a_token_lets_its_holder_in_with_its_role_until_it_is_revoked(
    tmp_path: Path,
) -> None:
    all_tokens = opened(prepared(tmp_path))
    created = await all_tokens.create("grafana", Role.VIEWER, None)
    assert created.secret.startswith(f"nct_{created.id}_")
    assert all_tokens.authenticate(created.secret) == Principal("token", created.id, Role.VIEWER)
    await all_tokens.revoke(created.id)
    assert all_tokens.authenticate(created.secret) is None
    await all_tokens.revoke(created.id)


def test_a_token_expires(tmp_path: Path) -> None:
    clock = Clock()
    all_tokens = opened(prepared(tmp_path), clock)
    created = all_tokens.create_blocking("ci", "operator", 60.0)
    clock.time += 59
    assert all_tokens.authenticate(created.secret) is not None
    clock.time += 1
    assert all_tokens.authenticate(created.secret) is None
    states = {entry["id"]: entry["state"] for entry in all_tokens.list()}
    assert states[created.id] == "expired"


def test_only_a_hash_is_stored(tmp_path: Path) -> None:
    all_tokens = opened(prepared(tmp_path))
    created = all_tokens.create_blocking("x", "viewer")
    stored = all_tokens.path.read_bytes().decode()
    assert created.secret not in stored
    assert created.secret.split("_", 2)[2] not in stored
    shown = (
        f"{created!r} {all_tokens!r} {all_tokens.list()} {list(all_tokens._known[0].values())!r}"
    )
    assert created.secret.split("_", 2)[2] not in shown
    assert created.secret not in mask(f"Authorization: Bearer {created.secret}")


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokens, str]:
    all_tokens = opened(prepared(tmp_path_factory.mktemp("tokens")))
    return all_tokens, all_tokens.create_blocking("x", "viewer").secret


@given(text=st.text(max_size=400))
def test_no_other_text_lets_anybody_in(some: tuple[Tokens, str], text: str) -> None:
    assert some[0].authenticate(text) is None


@given(data=st.data())
def test_a_token_with_one_character_changed_lets_nobody_in(
    some: tuple[Tokens, str], data: st.DataObject
) -> None:
    all_tokens, secret = some
    index = data.draw(st.integers(0, len(secret) - 1))
    character = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    changed = secret[:index] + character + secret[index + 1 :]
    assert (all_tokens.authenticate(changed) is not None) == (changed == secret)
    assert all_tokens.authenticate(secret + character) is None
    assert all_tokens.authenticate(secret[:index]) is None


def test_the_first_boot_leaves_a_token_for_the_administrator(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    made, warnings = Tokens(directory).open_blocking()
    assert made
    assert warnings == []
    secret = (directory.secrets / "admin.token").read_text().strip()
    principal = opened(directory).authenticate(secret)
    assert principal is not None
    assert principal.role is Role.ADMIN


def test_the_administrators_file_is_not_made_again_once_it_was_removed(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    opened(directory).admin_path.unlink()
    assert Tokens(directory).open_blocking() == (False, [])
    assert not (directory.secrets / "admin.token").exists()


def test_revoking_the_administrators_token_removes_its_file(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    all_tokens = opened(directory)
    other = all_tokens.create_blocking("x", "admin")
    all_tokens.revoke_blocking(other.id)
    assert all_tokens.admin_path.exists()
    all_tokens.revoke_blocking(str(all_tokens.list()[0]["id"]))
    assert not all_tokens.admin_path.exists()


def test_an_administrators_file_that_others_can_read_is_not_adopted(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    opened(directory).path.unlink()
    (directory.secrets / "admin.token").chmod(0o644)
    with pytest.raises(SecretReferenceError, match="chmod 600"):
        opened(directory)


def test_a_running_node_takes_over_what_the_command_line_changed(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    running, other = opened(directory), opened(directory)
    created = other.create_blocking("x", "viewer")
    assert running.authenticate(created.secret) is not None
    other.revoke_blocking(created.id)
    assert running.authenticate(created.secret) is None


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    opened(directory)
    made: list[str] = []

    def work() -> None:
        mine = opened(directory)
        made.extend(mine.create_blocking("x", "viewer").id for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 20
    assert set(made) <= {entry["id"] for entry in opened(directory).list()}


@pytest.mark.parametrize("damage", [b"", b"\0" * 300, b"{", b'{"tokens": 1, "version": 1}'])
def test_damaged_tokens_are_set_aside_and_none_of_them_is_valid_any_more(
    tmp_path: Path, damage: bytes
) -> None:
    directory = prepared(tmp_path)
    before = opened(directory)
    old = before.admin_path.read_text().strip()
    before.path.write_bytes(damage)
    made, warnings = Tokens(directory).open_blocking()
    assert made
    assert "were damaged" in warnings[0]
    assert [path.read_bytes() for path in directory.quarantine_area.iterdir()] == [damage]
    after = opened(directory)
    assert after.authenticate(old) is None
    assert after.authenticate(after.admin_path.read_text().strip()) is not None


def test_tokens_damaged_under_a_running_node_stay_as_they_were_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    all_tokens = opened(prepared(tmp_path))
    created = all_tokens.create_blocking("x", "viewer")
    all_tokens.path.write_bytes(b"{")
    for _ in range(3):
        assert all_tokens.authenticate(created.secret) is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(TokenInvalidError, match="cannot read the API tokens"):
        all_tokens.create_blocking("y", "viewer")
    assert all_tokens.path.read_bytes() == b"{"


@pytest.mark.parametrize(
    ("name", "role", "ttl", "why"),
    [
        ("x", "node", None, "none of viewer, operator, admin"),
        ("x", "root", None, "none of viewer, operator, admin"),
        ("", "viewer", None, "printable characters"),
        ("x" * 65, "viewer", None, "printable characters"),
        ("a\nb", "viewer", None, "printable characters"),
        ("x", "viewer", 0.0, "time to live"),
        ("x", "viewer", -5.0, "time to live"),
        ("x", "viewer", float("nan"), "time to live"),
        ("x", "viewer", 1e12, "time to live"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(
    tmp_path: Path, name: str, role: str, ttl: float | None, why: str
) -> None:
    all_tokens = opened(prepared(tmp_path))
    with pytest.raises(TokenInvalidError) as caught:
        all_tokens.create_blocking(name, role, ttl)
    assert why in caught.value.why
    assert caught.value.remedy
    assert len(all_tokens.list()) == 1


def test_there_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "TOKEN_LIMIT", 3)
    all_tokens = opened(prepared(tmp_path))
    first = all_tokens.create_blocking("a", "viewer")
    all_tokens.create_blocking("b", "viewer")
    with pytest.raises(TokenLimitError, match="novacron token revoke"):
        all_tokens.create_blocking("c", "viewer")
    all_tokens.revoke_blocking(first.id)
    all_tokens.create_blocking("c", "viewer")


def test_revoking_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(TokenNotFoundError, match="there is no token with this id"):
        opened(prepared(tmp_path)).revoke_blocking("0123")


def test_tokens_that_are_long_dead_are_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    all_tokens = opened(prepared(tmp_path), clock)
    all_tokens.create_blocking("short", "viewer", 60.0)
    clock.time += 31 * 86400
    all_tokens.create_blocking("new", "viewer")
    assert [entry["name"] for entry in all_tokens.list()] == ["first administrator", "new"]


def test_a_token_that_could_not_be_kept_is_not_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_tokens = opened(prepared(tmp_path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokens, "write_durably", full)
    with pytest.raises(StorageFailedError, match="the disk is full"):
        all_tokens.create_blocking("x", "viewer")
    with pytest.raises(StorageFailedError, match="the disk is full"):
        all_tokens.revoke_blocking(str(all_tokens.list()[0]["id"]))
    assert [entry["state"] for entry in all_tokens.list()] == ["active"]


def test_a_narrowed_token_stays_narrowed_when_it_is_read_again_and_when_it_is_revoked(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path)
    created = opened(directory).create_blocking(
        "acme", "operator", resources=["tenant:acme", "directory:/srv/acme/"]
    )
    again = opened(directory)
    principal = again.authenticate(created.secret)
    assert principal is not None
    assert principal.resources == ("directory:/srv/acme", "tenant:acme")
    again.revoke_blocking(created.id)
    (listed,) = [entry for entry in opened(directory).list() if entry["id"] == created.id]
    assert listed["resources"] == ["directory:/srv/acme", "tenant:acme"]


def test_a_file_of_the_release_before_is_read_and_its_tokens_are_not_narrowed(
    tmp_path: Path,
) -> None:
    directory = prepared(tmp_path)
    all_tokens = opened(directory)
    created = all_tokens.create_blocking("x", "viewer")
    body = documents.decode(all_tokens.path.read_bytes())
    assert body["version"] == 1
    for entry in body["tokens"]:
        del entry["resources"]
    all_tokens.path.write_bytes(documents.encode(body))
    assert opened(directory).authenticate(created.secret) == Principal(
        "token", created.id, Role.VIEWER
    )


def test_the_release_before_refuses_a_file_with_a_narrowed_token(tmp_path: Path) -> None:
    all_tokens = opened(prepared(tmp_path))
    all_tokens.create_blocking("acme", "operator", resources=["tenant:acme"])
    assert documents.decode(all_tokens.path.read_bytes())["version"] == 2


def test_a_token_narrowed_to_nonsense_is_not_made(tmp_path: Path) -> None:
    all_tokens = opened(prepared(tmp_path))
    with pytest.raises(TokenInvalidError, match="no kind of resource"):
        all_tokens.create_blocking("x", "viewer", resources=["acme"])
    assert len(all_tokens.list()) == 1


def test_a_revocation_holds_though_the_loop_reads_the_file_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_tokens = opened(prepared(tmp_path))
    created = all_tokens.create_blocking("ci", "viewer")

    def write(path: Path, data: bytes, **options: Any) -> None:
        # The command line changed the file a moment before, and the loop takes that over just now.
        all_tokens._load()
        write_durably(path, data, **options)

    monkeypatch.setattr(tokens, "write_durably", write)
    all_tokens.revoke_blocking(created.id)
    assert all_tokens.authenticate(created.secret) is None

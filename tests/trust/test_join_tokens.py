"""Join tokens: what they let in, once, and what is kept of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from novacron.security import join_token
from novacron.security.errors import JoinTokenError, TokenInvalidError, TokenNotFoundError
from novacron.security.join_tokens import GUESSES, JoinTokens
from novacron.security.roles import Role
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared
from tests.security.tls import Clock

KEY, OTHER_KEY = "a" * 64, "b" * 64
HASH = "0123456789abcdef" * 4


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return prepared(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(directory: DataDirectory, clock: Clock) -> JoinTokens:
    return JoinTokens(directory, now=clock)


def test_a_token_carries_the_authoritys_hash_which_is_not_shown_to_anybody(
    tokens: JoinTokens,
) -> None:
    id, secret = tokens.create_blocking()
    parsed = join_token.parse(f" {secret}_{HASH}\n")
    assert parsed == (id, secret, HASH)
    assert HASH not in parsed.secret


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("nct_0123456789abcdef_" + "x" * 43, "it is an API token"),
        ("ncj_0123456789abcdef_" + "x" * 43, "not copied whole"),
        ("ncj_0123456789abcdef_" + "x" * 43 + "_" + HASH[:-1], "not copied whole"),
        ("hello", "does not have the form"),
        ("ncj_0123456789abcdef_" + "x" * 43 + "_" + HASH.upper(), "not copied whole"),
    ],
)
def test_what_is_no_join_token_is_told_apart_and_not_repeated(text: str, why: str) -> None:
    with pytest.raises(JoinTokenError) as caught:
        join_token.parse(text)
    assert why in caught.value.why
    assert len(text) < 6 or text not in str(caught.value)


def test_only_a_hash_of_the_secret_is_on_disk(tokens: JoinTokens) -> None:
    _, secret = tokens.create_blocking("rack 4")
    data = tokens.path.read_text()
    assert "rack 4" in data
    assert secret not in data
    assert secret.split("_", 2)[2] not in data
    assert tokens.path.stat().st_mode & 0o777 == 0o600


def test_it_gives_a_role_that_may_join_and_nothing_else(tokens: JoinTokens) -> None:
    id, secret = tokens.create_blocking()
    principal = tokens.authenticate(secret)
    assert (principal.kind, principal.name, principal.role) == ("join", id, Role.JOIN)
    assert not any(Role.JOIN.allows(role) for role in Role if role is not Role.JOIN)
    assert not any(role.allows(Role.JOIN) for role in Role if role is not Role.JOIN)


def test_a_token_works_once_and_again_for_the_same_key(
    tokens: JoinTokens, directory: DataDirectory, clock: Clock
) -> None:
    id, secret = tokens.create_blocking()
    tokens.claim_blocking(id, NODE_ID, KEY)
    assert tokens.claim_blocking(id, NODE_ID, KEY).used == clock.time
    # In this process and in any other, before and after a restart.
    for seen in (tokens, JoinTokens(directory, now=clock)):
        for node, key in ((NODE_ID, OTHER_KEY), (OTHER_ID, KEY), (OTHER_ID, OTHER_KEY)):
            with pytest.raises(JoinTokenError, match=f"used already, by node {NODE_ID}"):
                seen.claim_blocking(id, node, key)
        assert seen.authenticate(secret).name == id
    assert tokens.list()[0]["state"] == "used"
    assert tokens.list()[0]["node_id"] == NODE_ID


def test_of_many_who_use_it_at_once_one_gets_it(
    tokens: JoinTokens, directory: DataDirectory, clock: Clock
) -> None:
    id, _ = tokens.create_blocking()
    start = threading.Barrier(8)
    won: list[str] = []
    refused: list[str] = []

    def claim(number: int) -> None:
        # Half of them in one process' view of the file, half in others'.
        mine = tokens if number % 2 else JoinTokens(directory, now=clock)
        start.wait()
        try:
            won.append(mine.claim_blocking(id, NODE_ID, f"{number:064x}").used_key)
        except JoinTokenError as exc:
            refused.append(exc.why)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(refused) == 7


def test_an_expired_or_revoked_token_says_so_to_who_knows_it_and_to_nobody_else(
    tokens: JoinTokens, clock: Clock
) -> None:
    id, secret = tokens.create_blocking(ttl=600)
    other, other_secret = tokens.create_blocking()
    tokens.revoke_blocking(other)
    clock.time += 600
    with pytest.raises(JoinTokenError, match="it expired at"):
        tokens.authenticate(secret)
    with pytest.raises(JoinTokenError, match="it expired at"):
        tokens.claim_blocking(id, NODE_ID, KEY)
    with pytest.raises(JoinTokenError, match="it was revoked at"):
        tokens.authenticate(other_secret)
    with pytest.raises(JoinTokenError, match="given out no such token"):
        tokens.authenticate(f"ncj_{id}_{'x' * 43}")


def test_a_token_that_was_guessed_at_is_void(tokens: JoinTokens) -> None:
    id, secret = tokens.create_blocking()
    for number in range(GUESSES):
        with pytest.raises(JoinTokenError, match="no such token"):
            tokens.authenticate(f"ncj_{id}_{number:043d}")
    with pytest.raises(JoinTokenError, match="somebody has tried 10 wrong secrets"):
        tokens.authenticate(secret)


def test_a_token_for_one_node_lets_no_other_in(tokens: JoinTokens) -> None:
    id, _ = tokens.create_blocking(node_id=NODE_ID)
    with pytest.raises(JoinTokenError, match=f"it is for node {NODE_ID}") as caught:
        tokens.claim_blocking(id, OTHER_ID, KEY)
    assert f"--node-id {OTHER_ID}" in caught.value.remedy
    assert tokens.claim_blocking(id, NODE_ID, KEY).used_by == NODE_ID


@pytest.mark.parametrize(
    "wrong", [{"ttl": 0.5}, {"ttl": 31 * 86400.0}, {"node_id": "x"}, {"name": "x" * 65}]
)
def test_arguments_that_make_no_sense_are_refused(
    tokens: JoinTokens, wrong: dict[str, object]
) -> None:
    with pytest.raises(TokenInvalidError):
        tokens.create_blocking(**wrong)  # type: ignore[arg-type]
    assert not tokens.path.exists()


def test_with_a_damaged_file_nobody_joins_and_nothing_is_overwritten(tokens: JoinTokens) -> None:
    id, secret = tokens.create_blocking()
    damaged = tokens.path.read_bytes().replace(b'"used": null', b'"used": true')
    tokens.path.write_bytes(damaged)
    with pytest.raises(JoinTokenError):
        tokens.authenticate(secret)
    with pytest.raises(TokenInvalidError, match="its checksum does not match"):
        tokens.claim_blocking(id, NODE_ID, KEY)
    with pytest.raises(TokenInvalidError):
        tokens.create_blocking()
    assert tokens.path.read_bytes() == damaged


def test_a_token_nobody_knows_cannot_be_revoked(tokens: JoinTokens) -> None:
    with pytest.raises(TokenNotFoundError):
        tokens.revoke_blocking("0123456789abcdef")

"""Tokens that every node takes: looked up through the cache, and what becomes of them when the database
or the cache is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from novacron.api.cluster_tokens import (
    LOOKUP_BURST,
    LOOKUPS_AT_ONCE,
    UNKNOWN_LIMIT,
    LookupsLimitedError,
)
from novacron.api.token_table import TOKEN_LIMIT, ClusterTokensUnavailableError
from novacron.cache.store import CacheUnavailableError
from novacron.log.redaction import mask
from novacron.security import Principal, Role
from novacron.security.errors import TokenInvalidError, TokenLimitError, TokenNotFoundError
from tests.api.cluster import BOUND, Cluster, shared_cluster

HERE = "192.0.2.7"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with shared_cluster(tmp_path) as made:
        yield made


async def test_every_node_takes_a_token_with_its_role_and_resources(cluster: Cluster) -> None:
    id, secret = await cluster.token(resources=["tenant:acme"])
    expected = Principal("token", id, Role.OPERATOR, ("tenant:acme",))
    assert await cluster.first.authenticate(secret, HERE) == expected
    assert await cluster.second.authenticate(secret, HERE) == expected
    assert secret.startswith(f"ncc_{id}_")
    assert secret not in mask(f"Authorization: Bearer {secret}")


async def test_only_a_hash_is_in_the_database_and_not_even_that_in_the_cache(
    cluster: Cluster,
) -> None:
    id, secret = await cluster.token()
    await cluster.first.authenticate(secret, HERE)
    row = await cluster.database.store.fetch_one("SELECT * FROM api_token")
    assert secret.split("_", 2)[2] not in str(row)
    cached = await cluster.cache.get(f"api-token:{id}")
    assert cached is not None
    assert row is not None
    assert len(cached) == 32
    assert cached.hex() not in row


@pytest.mark.parametrize("wrong", ["", "x", "ncc_", "ncc__", "nct_0123456789abcdef_x", "ncc_1_2_3"])
async def test_what_is_no_token_of_the_cluster_is_nobodys(cluster: Cluster, wrong: str) -> None:
    assert await cluster.first.authenticate(wrong, HERE) is None


async def test_the_right_id_with_another_secret_is_nobodys(cluster: Cluster) -> None:
    id, secret = await cluster.token()
    for wrong in (secret + "x", secret[:-1], f"ncc_{id}_x", secret.replace("ncc_", "nct_", 1)):
        assert await cluster.first.authenticate(wrong, HERE) is None
    assert await cluster.first.authenticate(secret, HERE) is not None


async def test_a_token_that_was_read_costs_the_database_nothing_within_the_bound(
    cluster: Cluster,
) -> None:
    _, secret = await cluster.token()
    await cluster.first.authenticate(secret, HERE)
    asked = cluster.database.asked
    for _ in range(100):
        assert await cluster.first.authenticate(secret, HERE) is not None
    assert cluster.database.asked == asked
    cluster.clock.time += BOUND
    assert await cluster.first.authenticate(secret, HERE) is not None
    assert cluster.database.asked > asked


async def test_a_revocation_reaches_every_node_with_the_caches_message(cluster: Cluster) -> None:
    id, secret = await cluster.token()
    for node in (cluster.first, cluster.second):
        assert await node.authenticate(secret, HERE) is not None
    await cluster.first.revoke(id)
    for node in (cluster.first, cluster.second):
        assert await node.authenticate(secret, HERE) is None
    await cluster.second.revoke(id)


@pytest.mark.parametrize("shared", ["nothing", "memory each"])
async def test_without_a_shared_cache_it_reaches_the_others_within_the_bound(
    cluster: Cluster, shared: str
) -> None:
    make: Callable[[], Any] = (lambda: None) if shared == "nothing" else cluster.new_cache
    here, there = cluster.node(make()), cluster.node(make())
    id, secret = await cluster.token()
    assert await there.authenticate(secret, HERE) is not None
    await here.revoke(id)
    assert await here.authenticate(secret, HERE) is None
    cluster.clock.time += BOUND - 0.01
    assert await there.authenticate(secret, HERE) is not None
    cluster.clock.time += 0.01
    assert await there.authenticate(secret, HERE) is None


async def test_whoever_writes_to_the_cache_makes_no_token_and_keeps_none_past_the_bound(
    cluster: Cluster,
) -> None:
    await cluster.cache.set("api-token:0123456789abcdef", b"\0" * 32)
    assert await cluster.first.authenticate("ncc_0123456789abcdef_x", HERE) is None
    id, secret = await cluster.token()
    assert await cluster.second.authenticate(secret, HERE) is not None
    old = await cluster.cache.get(f"api-token:{id}")
    assert old is not None
    await cluster.first.revoke(id)
    await cluster.cache.set(f"api-token:{id}", old)
    cluster.clock.time += BOUND
    await cluster.cache.set(f"api-token:{id}", old)
    assert await cluster.second.authenticate(secret, HERE) is None


async def test_a_revocation_during_a_lookup_is_not_covered_up_by_what_was_read_before(
    cluster: Cluster,
) -> None:
    id, secret = await cluster.token()
    gate = cluster.database.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.second.authenticate, secret, HERE)
        await trio.testing.wait_all_tasks_blocked()
        cluster.database.gate = None
        await cluster.first.revoke(id)
        gate.set()
    assert await cluster.second.authenticate(secret, HERE) is None


async def test_a_token_expires_on_every_node(cluster: Cluster) -> None:
    _, secret = await cluster.token(ttl=10.0)
    assert await cluster.second.authenticate(secret, HERE) is not None
    cluster.clock.time += 10.0
    assert await cluster.second.authenticate(secret, HERE) is None
    assert [entry["state"] for entry in await cluster.first.list()] == ["expired"]


async def test_while_the_database_is_away_known_tokens_work_until_the_bound(
    cluster: Cluster,
) -> None:
    _, known = await cluster.token()
    _, unknown = await cluster.token()
    assert await cluster.first.authenticate(known, HERE) is not None
    cluster.database.away = True
    assert await cluster.first.authenticate(known, HERE) is not None
    with pytest.raises(ClusterTokensUnavailableError) as caught:
        await cluster.first.authenticate(unknown, HERE)
    assert "PostgreSQL is away (connection refused)" in caught.value.why
    assert "novacron token create" in caught.value.remedy
    cluster.clock.time += BOUND
    with pytest.raises(ClusterTokensUnavailableError):
        await cluster.first.authenticate(known, HERE)
    cluster.database.away = False
    for secret in (known, unknown):
        assert await cluster.first.authenticate(secret, HERE) is not None


async def test_a_change_that_cannot_be_kept_says_so(cluster: Cluster) -> None:
    id, secret = await cluster.token()
    cluster.database.away = True
    with pytest.raises(ClusterTokensUnavailableError, match="cannot make the token"):
        await cluster.token()
    with pytest.raises(ClusterTokensUnavailableError, match="cannot revoke the token"):
        await cluster.first.revoke(id)
    with pytest.raises(ClusterTokensUnavailableError, match="cannot list"):
        await cluster.first.list()
    cluster.database.away = False
    assert await cluster.first.authenticate(secret, HERE) is not None
    assert len(await cluster.first.list()) == 1


async def test_a_cache_that_is_away_costs_lookups_and_no_call(cluster: Cluster) -> None:
    class Away:
        async def get(self, *arguments: Any, **options: Any) -> bytes:
            raise CacheUnavailableError("the cache is not running")

        get_or_load = delete = get

    node = cluster.node(Away())
    id, secret = await cluster.token()
    asked = cluster.database.asked
    for _ in range(10):
        assert await node.authenticate(secret, HERE) is not None
    assert cluster.database.asked == asked + 1
    await node.revoke(id)
    assert await node.authenticate(secret, HERE) is None


async def test_guessing_is_stopped_at_the_address_it_comes_from(cluster: Cluster) -> None:
    _, secret = await cluster.token()
    asked = cluster.database.asked
    with pytest.raises(LookupsLimitedError) as caught:
        for number in range(10_000):
            await cluster.first.authenticate(f"ncc_{number:016x}_x", "198.51.100.9")
    assert caught.value.retry_after > 0
    assert cluster.database.asked - asked <= LOOKUP_BURST + 1
    assert await cluster.first.authenticate(secret, HERE) is not None


async def test_an_id_that_is_nobodys_is_not_asked_for_again_and_fills_no_cache(
    cluster: Cluster,
) -> None:
    assert await cluster.first.authenticate("ncc_0123456789abcdef_x", HERE) is None
    asked = cluster.database.asked
    for _ in range(1000):
        assert await cluster.first.authenticate("ncc_0123456789abcdef_y", HERE) is None
    assert cluster.database.asked == asked
    assert cluster.cache.statistics().entries == 0
    for number in range(UNKNOWN_LIMIT + 10):
        cluster.first._note_unknown(str(number))
    assert len(cluster.first._unknown) == UNKNOWN_LIMIT


async def test_lookups_do_not_pile_up_behind_a_slow_database(cluster: Cluster) -> None:
    gate = cluster.database.gate = trio.Event()

    async def ask(number: int) -> None:
        await cluster.first.authenticate(f"ncc_{number:016x}_x", HERE)

    async with trio.open_nursery() as nursery:
        for number in range(LOOKUPS_AT_ONCE):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ClusterTokensUnavailableError, match="cannot check"):
            await ask(LOOKUPS_AT_ONCE)
        gate.set()
    await ask(LOOKUPS_AT_ONCE)


async def test_many_calls_with_one_new_token_ask_the_database_once(cluster: Cluster) -> None:
    _, secret = await cluster.token()
    asked = cluster.database.asked
    found: list[Principal | None] = []

    async def call() -> None:
        found.append(await cluster.second.authenticate(secret, HERE))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(call)
    assert None not in found
    assert cluster.database.asked == asked + 1


async def test_the_list_says_who_made_a_token_and_holds_no_hash(cluster: Cluster) -> None:
    id, _ = await cluster.token(resources=["tenant:acme"])
    (entry,) = await cluster.second.list()
    assert entry.pop("created").endswith("Z")
    assert entry == {
        "id": id,
        "name": "ci",
        "role": "operator",
        "resources": ["tenant:acme"],
        "expires": None,
        "state": "active",
        "created_by": "token:admin",
    }


async def test_a_token_that_makes_no_sense_is_not_made(cluster: Cluster) -> None:
    for options in (
        {"role": "node"},
        {"role": "king"},
        {"ttl": 0.5},
        {"resources": ["acme"]},
        {"resources": []},
    ):
        with pytest.raises(TokenInvalidError):
            await cluster.token(**options)  # type: ignore[arg-type]
    with pytest.raises(TokenNotFoundError):
        await cluster.first.revoke("0123456789abcdef")
    assert await cluster.first.list() == []


async def test_there_are_only_so_many_and_dead_ones_do_not_count(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TOKEN_LIMIT > 2
    monkeypatch.setattr("novacron.api.token_table.TOKEN_LIMIT", 2)
    first, _ = await cluster.token()
    await cluster.token(ttl=60.0)
    with pytest.raises(TokenLimitError, match="2 usable"):
        await cluster.token()
    await cluster.first.revoke(first)
    await cluster.token()
    cluster.clock.time += 31 * 86400
    await cluster.token()
    assert [entry["state"] for entry in await cluster.first.list()] == ["active", "active"]

"""What every :class:`novacron.cache.store.CacheStore` must do. Each case gets an empty cache with
room for 64 KiB of memory, a time to live of 60 s, and a function that lets time pass.

What is set may be anywhere; what was got is in memory. So cases about memory get what they set.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from novacron.cache.store import CacheInvalidError, CacheLimitError, CacheStore

Pass = Callable[[float], Awaitable[None]]
Case = Callable[[CacheStore, Pass], Awaitable[None]]

ROOM = 64 * 1024
TTL = 60.0


class Loader:
    """Counts its runs; waits until it is let go."""

    def __init__(self, value: bytes = b"loaded", failure: Exception | None = None) -> None:
        self.value = value
        self.failure = failure
        self.runs = 0
        self.began = trio.Event()
        self.go = trio.Event()

    async def __call__(self) -> bytes:
        self.runs += 1
        self.began.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return self.value


async def what_is_set_is_got(cache: CacheStore, later: Pass) -> None:
    assert await cache.get("key") is None
    await cache.set("key", b"value")
    await cache.set("empty", b"")
    await cache.set("schlüssel ☃", bytes(range(256)))
    assert await cache.get("key") == b"value"
    assert await cache.get("empty") == b""
    assert await cache.get("schlüssel ☃") == bytes(range(256))
    await cache.set("key", b"other")
    assert await cache.get("key") == b"other"


async def delete_says_whether_there_was_one(cache: CacheStore, later: Pass) -> None:
    await cache.set("key", b"value")
    assert await cache.delete("key")
    assert not await cache.delete("key")
    assert await cache.get("key") is None


async def clear_forgets_everything(cache: CacheStore, later: Pass) -> None:
    for number in range(10):
        await cache.set(f"key {number}", b"value")
    await cache.clear()
    assert [await cache.get(f"key {number}") for number in range(10)] == [None] * 10
    assert cache.statistics().evictions == 0
    assert cache.statistics().entries == cache.statistics().bytes == 0


async def an_entry_lives_as_long_as_its_writer_says(cache: CacheStore, later: Pass) -> None:
    await cache.set("short", b"1", ttl=5.0)
    await cache.set("usual", b"2")
    await cache.set("long", b"3", ttl=3600.0)
    await later(4.0)
    assert await cache.get("short") == b"1"
    await later(2.0)
    assert await cache.get("short") is None
    assert not await cache.delete("short")
    assert await cache.get("usual") == b"2"
    await later(TTL)
    assert await cache.get("usual") is None
    assert await cache.get("long") == b"3"


async def setting_again_starts_the_time_anew(cache: CacheStore, later: Pass) -> None:
    await cache.set("key", b"1", ttl=10.0)
    await later(8.0)
    await cache.set("key", b"2", ttl=10.0)
    await later(8.0)
    assert await cache.get("key") == b"2"


async def the_room_is_never_exceeded(cache: CacheStore, later: Pass) -> None:
    for number in range(500):
        await cache.set(f"key {number}", b"x" * (number * 7 % 2000))
        assert await cache.get(f"key {number}") is not None
        figures = cache.statistics()
        assert figures.bytes <= figures.max_bytes
    figures = cache.statistics()
    assert figures.evictions + figures.entries == 500
    assert cache.get_nowait("key 499") is not None


async def what_was_used_last_stays(cache: CacheStore, later: Pass) -> None:
    await cache.set("used", b"x" * 1000)
    assert await cache.get("used") is not None
    for number in range(200):
        await cache.set(f"filler {number}", b"x" * 1000)
        assert await cache.get(f"filler {number}") is not None
        assert cache.get_nowait("used") is not None
    assert cache.get_nowait("filler 0") is None


async def keys_count_too(cache: CacheStore, later: Pass) -> None:
    await cache.set("k" * 10_000, b"")
    assert await cache.get("k" * 10_000) == b""
    assert cache.statistics().bytes > 10_000
    with pytest.raises(CacheLimitError):
        await cache.set("k" * ROOM, b"")


async def what_is_larger_than_the_room_is_refused(cache: CacheStore, later: Pass) -> None:
    await cache.set("other", b"stays")
    await cache.set("key", b"small")
    with pytest.raises(CacheLimitError) as caught:
        await cache.set("key", b"x" * ROOM)
    assert caught.value.key == "cache.max_bytes"
    assert str(ROOM) in str(caught.value)
    assert await cache.get("key") is None, "the old value is wrong now"
    assert await cache.get("other") == b"stays"
    assert cache.statistics().oversize == 1


async def what_cannot_be_kept_is_refused(cache: CacheStore, later: Pass) -> None:
    for key, value, ttl in (
        ("key", "text", None),
        ("key", None, None),
        (b"key", b"value", None),
        ("key", b"value", 0.0),
        ("key", b"value", -1.0),
        ("key", b"value", float("nan")),
    ):
        with pytest.raises(CacheInvalidError):
            await cache.set(cast(str, key), cast(bytes, value), ttl=ttl)
    assert cache.statistics().entries == 0


async def one_loader_runs_for_all_who_ask(cache: CacheStore, later: Pass) -> None:
    loader = Loader()
    got: list[bytes] = []

    async def ask() -> None:
        got.append(await cache.get_or_load("key", loader))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
        await loader.began.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert loader.runs == 1
        loader.go.set()
    assert got == [b"loaded"] * 100
    assert await cache.get_or_load("key", loader) == b"loaded"
    assert loader.runs == 1
    assert cache.statistics().loads == 1


async def loaders_of_different_keys_do_not_wait_for_each_other(
    cache: CacheStore, later: Pass
) -> None:
    slow, quick = Loader(), Loader()
    quick.go.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.get_or_load, "slow", slow)
        await slow.began.wait()
        assert await cache.get_or_load("quick", quick) == b"loaded"
        slow.go.set()


async def a_loaders_failure_reaches_all_who_wait_and_is_not_kept(
    cache: CacheStore, later: Pass
) -> None:
    loader = Loader(failure=KeyError("nothing there"))
    failed: list[KeyError] = []

    async def ask() -> None:
        try:
            await cache.get_or_load("key", loader)
        except KeyError as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
        await loader.began.wait()
        await trio.testing.wait_all_tasks_blocked()
        loader.go.set()
    assert len(failed) == 10
    assert loader.runs == 1
    assert cache.statistics().load_failures == 1
    loader.failure = None
    assert await cache.get_or_load("key", loader) == b"loaded"


async def a_waiting_caller_takes_over_when_the_loading_one_is_cancelled(
    cache: CacheStore, later: Pass
) -> None:
    first, second = Loader(b"first"), Loader(b"second")
    got: list[bytes] = []

    async def ask() -> None:
        got.append(await cache.get_or_load("key", second))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as doomed:
                doomed.start_soon(cache.get_or_load, "key", first)
                await first.began.wait()
                for _ in range(10):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await second.began.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert second.runs == 1
        second.go.set()
    assert got == [b"second"] * 10


async def a_waiting_caller_that_is_cancelled_leaves_alone(cache: CacheStore, later: Pass) -> None:
    loader = Loader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.get_or_load, "key", loader)
        await loader.began.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            await cache.get_or_load("key", loader)
        assert scope.cancelled_caught
        loader.go.set()
    assert await cache.get("key") == b"loaded"


async def a_change_during_a_load_wins_over_what_it_returns(cache: CacheStore, later: Pass) -> None:
    async def replace() -> None:
        await cache.set("key", b"newer")

    async def delete() -> None:
        await cache.delete("key")

    changes: list[tuple[Callable[[], Awaitable[Any]], bytes | None]] = [
        (replace, b"newer"),
        (delete, None),
        (cache.clear, None),
    ]
    for change, left in changes:
        await cache.clear()
        loader = Loader(b"older")
        got: list[bytes] = []

        async def ask(loader: Loader = loader, got: list[bytes] = got) -> None:
            got.append(await cache.get_or_load("key", loader))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await loader.began.wait()
            await trio.testing.wait_all_tasks_blocked()
            await change()
            loader.go.set()
        assert got == [b"older", b"older"]
        assert await cache.get("key") == left


async def who_asks_after_a_delete_gets_a_new_load(cache: CacheStore, later: Pass) -> None:
    old, new = Loader(b"old"), Loader(b"new")
    new.go.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.get_or_load, "key", old)
        await old.began.wait()
        await cache.delete("key")
        assert await cache.get_or_load("key", new) == b"new"
        old.go.set()
    assert await cache.get("key") == b"new"


async def a_loaded_value_too_large_to_keep_is_returned(cache: CacheStore, later: Pass) -> None:
    loader = Loader(b"x" * ROOM)
    loader.go.set()
    assert await cache.get_or_load("key", loader) == b"x" * ROOM
    assert await cache.get("key") is None
    assert cache.statistics().oversize == 1


async def a_loaded_value_lives_as_long_as_asked(cache: CacheStore, later: Pass) -> None:
    loader = Loader()
    loader.go.set()
    await cache.get_or_load("key", loader, ttl=5.0)
    await later(6.0)
    assert await cache.get("key") is None


async def a_loader_that_returns_something_else_is_a_defect(cache: CacheStore, later: Pass) -> None:
    loader = Loader(cast(bytes, "text"))
    loader.go.set()
    with pytest.raises(CacheInvalidError):
        await cache.get_or_load("key", loader)


async def hits_and_misses_are_counted(cache: CacheStore, later: Pass) -> None:
    assert cache.statistics().hit_rate == 0.0
    await cache.get("key")
    await cache.set("key", b"value", ttl=5.0)
    for _ in range(3):
        await cache.get("key")
    await later(6.0)
    await cache.get("key")
    await cache.delete("key")
    figures = cache.statistics()
    assert (figures.hits, figures.misses, figures.sets, figures.deletes) == (3, 2, 1, 0)
    assert figures.hit_rate == 0.6
    assert figures.entries == 0


CASES: tuple[Case, ...] = (
    what_is_set_is_got,
    delete_says_whether_there_was_one,
    clear_forgets_everything,
    an_entry_lives_as_long_as_its_writer_says,
    setting_again_starts_the_time_anew,
    the_room_is_never_exceeded,
    what_was_used_last_stays,
    keys_count_too,
    what_is_larger_than_the_room_is_refused,
    what_cannot_be_kept_is_refused,
    one_loader_runs_for_all_who_ask,
    loaders_of_different_keys_do_not_wait_for_each_other,
    a_loaders_failure_reaches_all_who_wait_and_is_not_kept,
    a_waiting_caller_takes_over_when_the_loading_one_is_cancelled,
    a_waiting_caller_that_is_cancelled_leaves_alone,
    a_change_during_a_load_wins_over_what_it_returns,
    who_asks_after_a_delete_gets_a_new_load,
    a_loaded_value_too_large_to_keep_is_returned,
    a_loaded_value_lives_as_long_as_asked,
    a_loader_that_returns_something_else_is_a_defect,
    hits_and_misses_are_counted,
)

"""The cache in memory, beyond the contract: against a model, and how much it really holds."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from novacron.cache.memory import BYTES, ENTRY_BYTES, EVICTIONS, HITS, LOADS, MISSES, MemoryCache

KEYS = st.sampled_from(["a", "b", "c", "é", "long key " * 5])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"),
            KEYS,
            st.integers(0, 3000),
            st.none() | st.sampled_from([0.5, 1.0, 7.0, 100.0]),
        ),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("wait"), st.sampled_from([0.25, 0.5, 1.0, 20.0])),
        st.tuples(st.just("clear")),
    ),
    max_size=60,
)


def run(coroutine: Any) -> Any:
    """Nothing in the cache's simple calls ever waits, and this holds it to that."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the call waited")


@given(STEPS)
def test_it_never_returns_what_a_plain_model_would_not(steps: list[tuple[Any, ...]]) -> None:
    now = 0.0
    cache = MemoryCache(max_bytes=6000, ttl=10.0, clock=lambda: now)
    model: dict[str, tuple[bytes, float]] = {}
    for number, step in enumerate(steps):
        match step:
            case ("set", key, size, ttl):
                value = bytes([number % 256]) * size
                run(cache.set(key, value, ttl=ttl))
                model[key] = (value, now + (10.0 if ttl is None else ttl))
            case ("get", key):
                value = run(cache.get(key))
                kept, until = model.get(key, (None, 0.0))
                assert value is None or (value == kept and now < until)
                assert cache.get_nowait(key) == value
            case ("delete", key):
                run(cache.delete(key))
                model.pop(key, None)
            case ("wait", seconds):
                now += seconds
            case ("clear",):
                run(cache.clear())
                model.clear()
        figures = cache.statistics()
        assert 0 <= figures.bytes <= 6000
        alive = {key for key, (_value, until) in model.items() if now < until}
        present = {key for key in model if cache.get_nowait(key) is not None}
        assert present <= alive
        if figures.evictions == 0:
            assert present == alive
            assert figures.entries == len(alive)


def test_what_it_counts_is_at_least_what_it_takes() -> None:
    cache = MemoryCache(max_bytes=1 << 30, ttl=300.0)
    tracemalloc.start()
    try:
        before, _peak = tracemalloc.get_traced_memory()
        for turn in range(3):
            for number in range(3000):
                run(cache.set(f"key {number:06}", b"%06d" % (number + turn)))
        after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= cache.statistics().bytes
    assert after - before >= 3000 * ENTRY_BYTES / 4, "and not many times more"


def test_reads_writes_and_losses_reach_the_metrics() -> None:
    def figures() -> list[float]:
        return [c.values.get(("memory",), 0.0) for c in (HITS, MISSES, EVICTIONS, LOADS)]

    before = figures()
    cache = MemoryCache(max_bytes=2000, ttl=300.0)
    run(cache.get("none"))
    for number in range(4):
        run(cache.set(f"key {number}", b"x" * 100))
    assert cache.get_nowait("key 3") == b"x" * 100
    assert [after - then for after, then in zip(figures(), before, strict=True)] == [1, 1, 1, 0]
    assert BYTES.values[("memory",)] == cache.statistics().bytes

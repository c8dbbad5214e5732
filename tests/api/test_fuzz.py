"""Whatever an authenticated caller asks, the answer is a success or a problem that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron import observe
from novacron.api.policy import ACTIONS
from novacron.data_directory import DataDirectory
from novacron.security import Role
from tests.api.calling import calling
from tests.api.conftest import Node

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
odd = st.sampled_from(
    ["", ".", "..", "-1", "%2e%2e", "\x00", "é", "a" * 5000, "api.port", "cache", "{name}"]
)
paths = st.one_of(
    st.sampled_from(sorted({path for _, path in ACTIONS})),
    st.builds(
        lambda path, part: path.partition("{")[0] + part,
        st.sampled_from(sorted({path for _, path in ACTIONS if "{" in path})),
        text | odd,
    ),
    text.map("/".__add__),
)
bodies = st.one_of(
    st.binary(max_size=50),
    st.recursive(st.none() | st.booleans() | st.floats() | text, st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "name": text | st.integers(),
            "role": text | st.sampled_from(["viewer", "admin", "node"]),
            "ttl": st.none() | st.floats() | st.integers(),
            "direction": st.sampled_from(["send", "receive"]),
            "node": text,
            "paths": st.lists(text | odd, max_size=3),
            "path": text | odd,
            "limit_bps": st.integers() | st.none(),
            "deadline_seconds": st.none() | st.floats(),
        },
    ).map(lambda value: json.dumps(value).encode()),
)
methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"])
calls = st.lists(st.tuples(methods, paths, text, bodies), min_size=5, max_size=40)


@settings(max_examples=25)
@given(calls)
def test_no_call_is_an_incident(
    new_data_directory: Callable[[], DataDirectory], made: list[tuple[str, str, str, bytes]]
) -> None:
    trio.run(call_all, new_data_directory(), made)


async def call_all(directory: DataDirectory, made: list[tuple[str, str, str, bytes]]) -> None:
    node = Node(directory)
    before = incidents()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await node.security.initialize(nursery)
            async with calling(node, Role.ADMIN, rate_limit=1e6, rate_burst=10**6) as client:
                for method, path, depth, body in made:
                    answer = await client.request(
                        method, quote(path), params={"depth": depth}, content=body
                    )
                    assert answer.status_code < 500, (method, path, answer.text)
                    if answer.status_code >= 400 and method != "HEAD":
                        assert answer.headers["content-type"] == "application/problem+json"
                        assert answer.json()["status"] == answer.status_code
            await node.security.shutdown()
            nursery.cancel_scope.cancel()
    assert incidents() == before


def incidents() -> float:
    [family] = [f for f in observe.collect() if f.name == "novacron_api_incidents_total"]
    assert isinstance(family, observe.Counter)
    return family.values[()]

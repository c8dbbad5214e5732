from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.network.registry import keeps_newer

ID = st.uuids().map(str)


@given(ID, ID)
def test_both_ends_keep_the_same_one_of_two_that_cross(one: str, other: str) -> None:
    kept = set()
    # Either order at either end: which connection survives may not depend on it.
    for old, new in itertools.permutations((one, other)):
        kept.add(new if keeps_newer(old, "boot", new, "boot") else old)
    assert kept == {min(one, other)}


@given(ID)
def test_of_two_dialled_by_the_same_node_the_newer_stays(node_id: str) -> None:
    assert keeps_newer(node_id, "boot", node_id, "boot")


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a"), ("a", "a")])
def test_a_session_of_an_earlier_boot_never_stays(old: str, new: str) -> None:
    assert keeps_newer(old, "first", new, "second")

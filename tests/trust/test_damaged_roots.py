"""Whatever comes as a list of trusted authorities is that list or refused in words."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.security import roots
from novacron.security.errors import RootsError
from novacron.security.roots import Roots
from tests.trust.authority_node import NOW, Node

FIELDS = Roots._fields
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Node:
    found = Node(Path(tmp_path_factory.mktemp("holder")))
    found.step("begin")
    return found


def block(body: Any) -> bytes:
    text = base64.encodebytes(json.dumps(body).encode())
    return b"-----BEGIN NOVACRON ROOTS-----\n" + text + b"-----END NOVACRON ROOTS-----\n"


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), length=st.integers(0, 9))
def test_a_list_with_other_bytes_is_the_same_or_refused(
    holder: Node, place: float, value: int, length: int
) -> None:
    document = holder.authority.document()
    assert document is not None
    data, trusted = document.block(), holder.authority.certificates()
    at = int(place * len(data))
    damaged = data[:at] + bytes((value,)) + data[at + length :]
    with contextlib.suppress(RootsError):
        assert roots.check(damaged, trusted, NOW) == document


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, min_size=1, max_size=3))
def test_a_list_with_other_fields_is_refused(holder: Node, changes: dict[str, Any]) -> None:
    document = holder.authority.document()
    assert document is not None
    body = json.loads(json.dumps(document._asdict()))
    changed = {**body, **changes}
    if json.dumps(changed) == json.dumps(body):
        return
    with pytest.raises(RootsError):
        roots.check(block(changed), holder.authority.certificates(), NOW)


@settings(max_examples=100, deadline=None)
@given(body=ANYTHING | st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_what_is_no_list_is_refused(body: Any) -> None:
    with pytest.raises(RootsError):
        roots.read(block(body))


@given(st.binary(max_size=200))
def test_bytes_without_one_hold_none_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(RootsError):
        assert roots.read(data) is None

"""The tree hash against its definition, and against ``tests/vectors/amst/tree.json``."""

from __future__ import annotations

import hashlib
import json
from array import array
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst.tree import Tree, root_of, zero_leaf

VECTORS = Path(__file__).parents[2] / "vectors" / "amst" / "tree.json"


def content(case: dict[str, Any]) -> bytes:
    """As the file says: byte ``i`` is ``(i * step + i // 256) % 256``."""
    step = case["step"]
    return bytes((i * step + i // 256) % 256 for i in range(case["size"]))


def by_definition(data: bytes, chunk: int) -> tuple[list[bytes], str]:
    leaves = [crc32(data[at : at + chunk]).to_bytes(4, "big") for at in range(0, len(data), chunk)]
    groups = [
        hashlib.sha256(b"novacron amst group" + b"".join(leaves[at : at + 1024])).digest()
        for at in range(0, len(leaves), 1024)
    ]
    head = b"novacron amst root" + len(data).to_bytes(8, "big") + chunk.to_bytes(4, "big")
    return leaves, hashlib.sha256(head + b"".join(groups)).hexdigest()


def cases() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]
    return loaded


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_the_vectors_hold(case: dict[str, Any]) -> None:
    if "leaves" in case:
        leaves = array("I", [int(leaf, 16) for leaf in case["leaves"]])
        if "step" in case:
            data = content(case)
            found, root = by_definition(data, case["chunk_bytes"])
            assert [leaf.hex() for leaf in found] == case["leaves"]
            assert root == case["root"]
    else:
        # As the file says: leaf i is i * 2654435761 mod 2^32.
        count = -(-case["size"] // case["chunk_bytes"])
        leaves = array("I", [i * 2654435761 % 2**32 for i in range(count)])
    assert root_of(case["size"], case["chunk_bytes"], leaves).hex() == case["root"]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=3000), st.lists(st.integers(1, 1500)))
def test_it_does_not_matter_how_many_leaves_come_at_a_time(
    values: list[int], cuts: list[int]
) -> None:
    leaves = array("I", values)
    size = len(leaves) * 4096
    tree = Tree(size, 4096)
    position = 0
    for cut in cuts:
        tree.add(leaves[position : position + cut])
        position += cut
    tree.add(leaves[position:])
    assert tree.root() == root_of(size, 4096, leaves)


def test_missing_and_surplus_leaves_are_noticed() -> None:
    tree = Tree(8192, 4096)
    tree.add(array("I", [1]))
    with pytest.raises(ValueError, match="1 leaves of 2"):
        tree.root()
    with pytest.raises(ValueError, match="more than 2"):
        tree.add(array("I", [1, 2]))


def test_size_order_and_every_leaf_matter() -> None:
    leaves = array("I", [1, 2, 3])
    root = root_of(12000, 4096, leaves)
    assert root != root_of(12001, 4096, leaves)
    assert root != root_of(12000, 4097, leaves)
    assert root != root_of(12000, 4096, array("I", [2, 1, 3]))


def test_the_leaf_of_zeros() -> None:
    assert zero_leaf(70000) == crc32(bytes(70000))
    assert zero_leaf(1) == crc32(b"\0")

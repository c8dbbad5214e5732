"""``novacron hde index``."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.dwcp.hde.blocks.index import BlockIndex, Stamp, open_index
from tests.cli.booted import Booted


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    return Booted(tmp_path / "node", capsys)


def indexed(node: Booted, tenant: str, *, whole: bool = True) -> BlockIndex:
    """As a running node has it open."""
    index = open_index(node.directory.root / "dwcp" / "blocks", tenant)
    file = index.begin(b"/srv/images/a.img", Stamp(4 << 20, 1, 2, 3))
    index.add(file, [(number << 16, 1 << 16, bytes([number]) * 32) for number in range(64)])
    if whole:
        index.complete(file)
    return index


def test_what_is_indexed_is_shown_by_tenant(node: Booted) -> None:
    assert node.run("hde", "index", "show").strip() == "nothing is indexed"
    for tenant in ("acme", "other"):
        indexed(node, tenant).close()
    lines = [line.split() for line in node.run("hde", "index", "show").splitlines()]
    assert lines[0] == ["TENANT", "FILES", "CONTENT", "BLOCKS", "INDEX"]
    assert [line[:5] for line in lines[1:]] == [
        ["acme", "1", "4.0", "MiB", "64"],
        ["other", "1", "4.0", "MiB", "64"],
    ]
    found = node.json("hde", "index", "show")["tenants"]
    assert [(one["tenant"], one["blocks"]) for one in found] == [("acme", 64), ("other", 64)]


def test_one_tenant_is_forgotten_and_then_all(node: Booted) -> None:
    for tenant in ("acme", "other"):
        indexed(node, tenant).close()
    assert "acme" in node.run("hde", "index", "clear", "--tenant", "acme")
    assert node.actions()[-1] == "hde.index.clear"
    found = node.json("hde", "index", "show")["tenants"]
    assert {one["tenant"]: one["blocks"] for one in found} == {"acme": 0, "other": 64}
    node.run("hde", "index", "clear")
    assert all(one["blocks"] == 0 for one in node.json("hde", "index", "show")["tenants"])


def test_a_running_node_is_not_disturbed_in_a_file_that_it_indexes(node: Booted) -> None:
    index = indexed(node, "acme", whole=False)
    assert node.json("hde", "index", "show")["tenants"][0]["blocks"] == 64
    assert index.has_path(b"/srv/images/a.img")
    node.run("hde", "index", "clear")
    assert index.empty
    index.close()


def test_an_index_that_cannot_be_used_is_told_with_what_to_do(node: Booted) -> None:
    indexed(node, "acme").close()
    directory = node.directory.root / "dwcp" / "blocks"
    [path] = directory.glob("*.sqlite")
    index = open_index(directory, "acme")
    index._connection.execute("DROP TABLE blocks")
    index._connection.commit()
    index.close()
    assert path.exists()
    assert "stop the node and delete them" in node.run("hde", "index", "clear", fails=1)

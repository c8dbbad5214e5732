"""What is kept of where other nodes were reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from novacron.dwcp.amst.address_book import MAX_NODES, AddressBook, data_host, dialled_at
from novacron.protocol.states import Role


class _Stream:
    peer_address = "192.0.2.7:51234"


class _Party:
    def __init__(self, address: str) -> None:
        self.address = address


class FakeSession:
    def __init__(self, role: Role, advertised: str) -> None:
        self.role = role
        self.stream = _Stream()
        self.peer = _Party(advertised)


@pytest.mark.parametrize(
    ("role", "advertised", "at", "host"),
    [
        (Role.INITIATOR, "", "192.0.2.7:51234", "192.0.2.7"),
        (Role.INITIATOR, "elsewhere:1", "192.0.2.7:51234", "192.0.2.7"),
        (Role.ACCEPTOR, "node.example:7401", "node.example:7401", "node.example"),
        (Role.ACCEPTOR, "[2001:db8::1]:7401", "[2001:db8::1]:7401", "2001:db8::1"),
        # The port that a connection comes from is nobody's listener.
        (Role.ACCEPTOR, "", None, "192.0.2.7"),
    ],
)
def test_where_a_node_can_be_dialled(
    role: Role, advertised: str, at: str | None, host: str
) -> None:
    session: Any = FakeSession(role, advertised)
    assert dialled_at(session) == at
    assert data_host(session) == host


def test_an_address_that_is_none_is_not_dialled_for_data() -> None:
    session: Any = FakeSession(Role.ACCEPTOR, "no address")
    assert data_host(session) == "192.0.2.7"


def test_a_book_is_read_again_with_what_was_used_longest_ago_left_out(tmp_path: Path) -> None:
    path = tmp_path / "dwcp" / "peers.json"
    book = AddressBook(path)
    assert all(book.note(f"node-{number}", f"host:{number}") for number in range(MAX_NODES))
    assert not book.note("node-0", "host:0")
    assert book.note("one more", "host:1")
    book.save()
    again = AddressBook(path)
    again.load()
    assert again.find("node-0") == "host:0"
    assert again.find("node-1") is None
    assert again.find("one more") == "host:1"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"node": 5}', b"\xff"])
def test_a_book_that_cannot_be_read_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    book = AddressBook(path)
    book.load()
    assert book.find("node") is None

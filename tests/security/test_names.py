"""Which names a certificate gets."""

from __future__ import annotations

import socket

import pytest

from novacron.security.names import certificate_names

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("node7.example.org:7401", "node7.example.org"),
        ("Node7.Example.org.", "node7.example.org"),
        ("[2001:db8::7]:7401", "2001:db8::7"),
        ("2001:0db8::7", "2001:db8::7"),
        ("fe80::7%eth0", "fe80::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("0.0.0.0", socket.gethostname().lower()),
        ("::", socket.gethostname().lower()),
    ],
)
def test_an_address_becomes_the_name_others_use(address: str, name: str) -> None:
    assert certificate_names(address) == tuple(dict.fromkeys((*LOOPBACK, name)))


def test_names_are_unique_and_what_cannot_be_a_name_is_left_out() -> None:
    assert certificate_names("127.0.0.1", None, "", "bücher.example", "a b") == LOOPBACK

"""Certificates from outside: used, replaced, and refused; and what a peer's makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from novacron.config.schema import SecuritySettings
from novacron.security.certificates import Certificates
from novacron.security.errors import CertificateError, ClockSetBackError, PeerRejectedError
from novacron.security.inspection import NODE_URI
from novacron.security.keyring import Keyring
from tests.security.issuing import DAY, OutsideAuthority, der, key_pem, pem, write_private
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared
from tests.security.tls import NAMES, certificates, shake_hands


def outside_files(root: Path, chain: bytes, key: bytes, authority: bytes) -> dict[str, Any]:
    return {
        "certificate": str(write_private(root / "outside.pem", chain)),
        "ca_certificate": str(write_private(root / "outside-ca.pem", authority)),
        "private_key": f"file:{write_private(root / 'outside.key', key)}",
    }


URI = NODE_URI + NODE_ID


def test_certificates_from_outside_are_used_with_their_intermediates(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    root = OutsideAuthority("root")
    middle = OutsideAuthority("middle", root)
    certificate, key = middle.issue([URI])
    files = outside_files(
        tmp_path, pem(certificate, middle.certificate), key_pem(key), pem(root.certificate)
    )
    mine = certificates(directory, **files)
    got, _, _ = shake_hands(mine.server_context(), mine.client_context())
    assert mine.identify(got).node_id == NODE_ID
    assert mine.status()["own_authority"] is False
    assert not (directory.pki / "ca.key").exists()
    again = certificates(directory, **files)
    assert again.material.serial == mine.material.serial


def test_a_private_key_from_the_environment_never_touches_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    directory = prepared(tmp_path)
    root = OutsideAuthority()
    certificate, key = root.issue([URI])
    files = outside_files(tmp_path, pem(certificate), key_pem(key), pem(root.certificate))
    (tmp_path / "outside.key").unlink()
    monkeypatch.setenv("NODE_KEY", key_pem(key).decode())
    mine = certificates(directory, **{**files, "private_key": "env:NODE_KEY"})
    assert mine.examine() == (None, [])
    shake_hands(mine.server_context(), mine.client_context())
    needle = key_pem(key).splitlines()[1]
    assert all(needle not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    mine.close()


def test_a_replaced_certificate_from_outside_is_taken_without_a_restart(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    root = OutsideAuthority()
    certificate, key = root.issue([URI])
    files = outside_files(tmp_path, pem(certificate), key_pem(key), pem(root.certificate))
    mine = certificates(directory, **files)
    newer, _ = root.issue([URI], key=key)
    (tmp_path / "outside.pem").write_bytes(pem(newer))
    material, _ = mine.examine()
    assert material is not None
    mine.adopt(material)
    _, got, _ = shake_hands(mine.server_context(), mine.client_context())
    assert got == der(newer)


def test_a_bad_replacement_does_not_count_before_it_was_checked(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    root = OutsideAuthority()
    certificate, key = root.issue([URI])
    files = outside_files(tmp_path, pem(certificate), key_pem(key), pem(root.certificate))
    mine = certificates(directory, **files)
    (tmp_path / "outside-ca.pem").write_bytes(b"half a file")
    with pytest.raises(CertificateError, match="it is not valid PEM"):
        mine.examine()
    assert mine.identify(der(certificate)).node_id == NODE_ID
    assert b"PRIVATE" not in b"".join(mine.material.trusted)


def test_the_operator_is_warned_before_a_certificate_from_outside_expires(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    root = OutsideAuthority()
    certificate, key = root.issue([URI], ends=5 * DAY)
    ring = Keyring(directory)
    ring.open()
    files = outside_files(tmp_path, pem(certificate), key_pem(key), pem(root.certificate))
    warnings = Certificates(directory, SecuritySettings(**files), ring, NAMES).open(NODE_ID)
    assert len(warnings) == 1
    assert "expires at" in warnings[0]


def broken(kind: str, root: OutsideAuthority) -> tuple[bytes, bytes, bytes]:
    """Certificate, key and authority files with one thing wrong."""
    certificate, key = root.issue([URI])
    good = pem(certificate), key_pem(key), pem(root.certificate)
    match kind:
        case "no PEM":
            return b"certificate", good[1], good[2]
        case "cut PEM":
            return good[0][:200], good[1], good[2]
        case "expired":
            certificate, key = root.issue([URI], begins=-9 * DAY, ends=-1 * DAY)
            return pem(certificate), key_pem(key), good[2]
        case "not yet valid":
            certificate, key = root.issue([URI], begins=3 * DAY)
            return pem(certificate), key_pem(key), good[2]
        case "other key":
            return good[0], key_pem(root.issue([URI])[1]), good[2]
        case "key with pass phrase":
            return good[0], key_pem(key, b"open sesame"), good[2]
        case "no key":
            return good[0], b"key", good[2]
        case "other authority":
            return good[0], good[1], pem(OutsideAuthority("outside").certificate)
        case "other node":
            certificate, key = root.issue([NODE_URI + OTHER_ID])
            return pem(certificate), key_pem(key), good[2]
        case "two nodes":
            certificate, key = root.issue([URI, NODE_URI + OTHER_ID])
            return pem(certificate), key_pem(key), good[2]
        case _:
            certificate, key = root.issue([])
            return pem(certificate), key_pem(key), good[2]


@pytest.mark.parametrize(
    ("kind", "why", "key"),
    [
        ("no PEM", "it is not valid PEM", "security.certificate"),
        ("cut PEM", "it is not valid PEM", "security.certificate"),
        ("expired", "it expired at", "security.certificate"),
        ("not yet valid", "it is not valid before", "security.certificate"),
        ("other key", "the private key does not match", "security.private_key"),
        ("key with pass phrase", "protected by a pass phrase", "security.private_key"),
        ("no key", "not a valid PEM private key", "security.private_key"),
        ("other authority", "not signed by the certificate authority", "security.ca_certificate"),
        ("other node", f"it names node {OTHER_ID}", "security.certificate"),
        ("two nodes", "it has no name urn:novacron:node", "security.certificate"),
        ("no name", "it has no name urn:novacron:node", "security.certificate"),
    ],
)
def test_each_way_a_certificate_can_be_wrong_has_its_own_message(
    tmp_path: Path, kind: str, why: str, key: str
) -> None:
    files = outside_files(tmp_path, *broken(kind, OutsideAuthority("outside")))
    with pytest.raises((CertificateError, ClockSetBackError)) as caught:
        certificates(prepared(tmp_path), **files)
    assert why in caught.value.why
    assert caught.value.remedy
    assert caught.value.key == key


def test_settings_that_belong_together_are_asked_for_together(tmp_path: Path) -> None:
    with pytest.raises(CertificateError) as caught:
        certificates(prepared(tmp_path), certificate="/etc/node.pem")
    assert "ca_certificate and private_key are not set" in caught.value.why
    assert caught.value.key == "security.ca_certificate"


def test_a_missing_file_from_outside_is_named(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "certificate": str(tmp_path / "none.pem"),
        "ca_certificate": str(tmp_path / "none-ca.pem"),
        "private_key": "env:KEY",
    }
    with pytest.raises(CertificateError, match=r"none\.pem: No such file"):
        certificates(prepared(tmp_path), **files)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("expired", "it expired at"),
        ("not yet valid", "one of the two clocks is wrong"),
        ("two nodes", "not exactly one name"),
        ("no name", "not exactly one name"),
    ],
)
def test_a_peer_is_refused_for_the_reason_there_is(tmp_path: Path, kind: str, why: str) -> None:
    root = OutsideAuthority("outside")
    certificate, key = root.issue([URI])
    mine = certificates(
        prepared(tmp_path),
        **outside_files(tmp_path, pem(certificate), key_pem(key), pem(root.certificate)),
    )
    theirs = x509.load_pem_x509_certificate(broken(kind, root)[0])
    with pytest.raises(PeerRejectedError) as caught:
        mine.identify(der(theirs))
    assert why in caught.value.why


def test_bytes_that_are_no_certificate_are_refused(tmp_path: Path) -> None:
    mine = certificates(prepared(tmp_path))
    for data in (b"", b"\0", b"\x30\x82" + bytes(100)):
        with pytest.raises(PeerRejectedError, match="it is no certificate"):
            mine.identify(data)


def test_a_certificate_signed_by_a_node_is_not_a_nodes(tmp_path: Path) -> None:
    """A leaf may not act as an authority."""
    root = OutsideAuthority("outside")
    leaf, leaf_key = root.issue([URI])
    mine = certificates(
        prepared(tmp_path),
        **outside_files(tmp_path, pem(leaf), key_pem(leaf_key), pem(root.certificate)),
    )
    forger = OutsideAuthority("forger")
    forger.key, forger.name = leaf_key, leaf.subject
    forged, _ = forger.issue([NODE_URI + OTHER_ID])
    with pytest.raises(PeerRejectedError, match="not signed by"):
        mine.identify(der(forged))

"""The node's certificates: issued, renewed, checked, and what a peer's makes it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security.certificates import Certificates
from novacron.security.errors import CertificateError, ClockSetBackError, PeerRejectedError
from novacron.security.inspection import NODE_URI
from novacron.security.keyring import Keyring
from tests.security.issuing import DAY, OutsideAuthority, der, key_pem, pem, write_private
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared

SECONDS_A_DAY = 86400.0
NAMES = ("localhost", "127.0.0.1")


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


def certificates(
    directory: DataDirectory,
    clock: Clock | None = None,
    node_id: str = NODE_ID,
    names: tuple[str, ...] = NAMES,
    **settings: Any,
) -> Certificates:
    ring = Keyring(directory)
    ring.open()
    made = Certificates(
        directory,
        SecuritySettings(**settings),
        ring,
        names,
        **({"now": clock} if clock else {}),
    )
    made.open(node_id)
    return made


def present(directory: DataDirectory) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory.pki / "node.pem").read_bytes())


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes, str]:
    """A handshake in memory; the certificate each side got, and the protocol."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    pending = [asking, serving]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            pending.remove(side)
        if not pending:
            break
    assert not pending
    got_by_server, got_by_client = serving.getpeercert(True), asking.getpeercert(True)
    assert got_by_server is not None
    assert got_by_client is not None
    return got_by_server, got_by_client, str(serving.version())


# --- Issued by the node ---------------------------------------------------------------------------


def test_the_first_boot_issues_a_certificate_with_the_nodes_names(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    mine = certificates(directory)
    names = present(directory).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [NODE_URI + NODE_ID]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert b"PRIVATE KEY" not in (directory.pki / "ca.key").read_bytes()
    assert mine.status()["own_authority"] is True


def test_nodes_speak_tls_1_3_with_certificates_on_both_sides(tmp_path: Path) -> None:
    mine = certificates(prepared(tmp_path))
    got_by_server, got_by_client, version = shake_hands(
        mine.server_context(), mine.client_context()
    )
    assert version == "TLSv1.3"
    assert mine.identify(got_by_server) == mine.identify(got_by_client)
    assert mine.identify(got_by_server).node_id == NODE_ID


def test_an_older_protocol_is_refused(tmp_path: Path) -> None:
    mine = certificates(prepared(tmp_path))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(mine.server_context(), old)


def test_a_client_without_a_certificate_is_refused_by_nodes_and_welcome_at_the_api(
    tmp_path: Path,
) -> None:
    mine = certificates(prepared(tmp_path))
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(mine.api_files().authority)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(mine.server_context(), _without_hostname(bare))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    bare.check_hostname = True
    asking = bare.wrap_bio(to_client, to_server, server_hostname="localhost")
    serving = mine.api_context().wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (asking, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert asking.version() == "TLSv1.3"


def _without_hostname(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    return context


def test_a_node_of_another_authority_is_refused(tmp_path: Path) -> None:
    mine = certificates(prepared(tmp_path / "a"))
    stranger = certificates(prepared(tmp_path / "b"), node_id=OTHER_ID)
    with pytest.raises(ssl.SSLError):
        shake_hands(mine.server_context(), stranger.client_context())
    theirs = der(present(DataDirectory(tmp_path / "b")))
    with pytest.raises(PeerRejectedError, match="not signed by the certificate authority"):
        mine.identify(theirs)


def test_a_warm_boot_keeps_the_certificate_and_a_due_one_is_renewed(tmp_path: Path) -> None:
    directory, clock = prepared(tmp_path), Clock()
    first = certificates(directory, clock).material.serial
    clock.time += 59 * SECONDS_A_DAY
    assert certificates(directory, clock).material.serial == first
    clock.time += 2 * SECONDS_A_DAY
    second = certificates(directory, clock).material
    assert second.serial != first
    assert second.not_after > clock.time + 89 * SECONDS_A_DAY


def test_an_expired_certificate_of_our_own_is_replaced_at_boot(tmp_path: Path) -> None:
    directory, clock = prepared(tmp_path), Clock()
    first = certificates(directory, clock).material.serial
    clock.time += 400 * SECONDS_A_DAY
    assert certificates(directory, clock).material.serial != first


def test_new_handshakes_use_a_renewed_certificate_in_contexts_given_out_before(
    tmp_path: Path,
) -> None:
    mine = certificates(prepared(tmp_path))
    server, client = mine.server_context(), mine.client_context()
    _, before, _ = shake_hands(server, client)
    material, _ = mine.examine(force=True)
    assert material is not None
    mine.adopt(material)
    _, after, _ = shake_hands(server, client)
    assert mine.identify(after).serial == material.serial != mine.identify(before).serial


def test_nothing_is_adopted_when_nothing_is_due(tmp_path: Path) -> None:
    mine = certificates(prepared(tmp_path))
    assert mine.examine() == (None, [])


def test_the_authority_is_renewed_with_its_key_so_that_old_certificates_stay_good(
    tmp_path: Path,
) -> None:
    directory, clock = prepared(tmp_path), Clock()
    first = certificates(directory, clock, ca_days=300)
    clock.time += 240 * SECONDS_A_DAY
    certificates(directory, clock, ca_days=300)
    old = der(present(directory))
    clock.time += 35 * SECONDS_A_DAY
    renewed = certificates(directory, clock, ca_days=300)
    assert renewed.material.ca_not_after > first.material.ca_not_after
    assert der(present(directory)) != old
    assert renewed.identify(old).node_id == NODE_ID


def test_a_changed_listen_address_gets_a_certificate_with_it(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    first = certificates(directory).material.serial
    second = certificates(directory, names=(*NAMES, "node7.example.org")).material
    assert second.serial != first
    assert "node7.example.org" in second.names


def test_a_window_as_long_as_the_validity_does_not_renew_at_every_look(tmp_path: Path) -> None:
    mine = certificates(prepared(tmp_path), certificate_days=10, renew_before_days=30, ca_days=30)
    assert mine.examine() == (None, [])


@pytest.mark.parametrize("damage", [b"", b"\0" * 900, b"-----BEGIN CERTIFICATE-----\nAAAA"])
def test_a_damaged_certificate_is_set_aside_and_a_new_one_issued(
    tmp_path: Path, damage: bytes
) -> None:
    directory = prepared(tmp_path)
    first = certificates(directory).material.serial
    (directory.pki / "node.pem").write_bytes(damage)
    ring = Keyring(directory)
    ring.open()
    mine = Certificates(directory, SecuritySettings(), ring, NAMES)
    warnings = mine.open(NODE_ID)
    assert mine.material.serial != first
    if damage:
        assert len(warnings) == 1
        assert "was damaged" in warnings[0]
        assert [p.read_bytes() for p in directory.quarantine_area.iterdir()] == [damage]


def test_a_damaged_authority_is_left_as_it_is(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    certificates(directory)
    (directory.pki / "ca.pem").write_bytes(b"nonsense")
    with pytest.raises(CertificateError, match="it is not valid PEM"):
        certificates(directory)
    assert (directory.pki / "ca.pem").read_bytes() == b"nonsense"


def test_an_authority_without_its_key_says_what_to_restore(tmp_path: Path) -> None:
    directory, clock = prepared(tmp_path), Clock()
    certificates(directory, clock)
    (directory.pki / "ca.key").unlink()
    clock.time += 80 * SECONDS_A_DAY
    with pytest.raises(CertificateError) as caught:
        certificates(directory, clock)
    assert "cannot find the authority's key" in caught.value.what
    assert "restore it from a backup" in caught.value.remedy


def test_a_certificate_of_another_node_is_not_overwritten(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    certificates(directory, node_id=OTHER_ID)
    before = (directory.pki / "node.pem").read_bytes()
    with pytest.raises(CertificateError) as caught:
        certificates(directory)
    assert f"it names node {OTHER_ID}, and this is node {NODE_ID}" in caught.value.why
    assert "move it away" in caught.value.remedy
    assert (directory.pki / "node.pem").read_bytes() == before


def test_a_clock_in_the_past_is_said_to_be_that(tmp_path: Path) -> None:
    directory, clock = prepared(tmp_path), Clock()
    certificates(directory, clock)
    clock.time -= 10 * SECONDS_A_DAY
    with pytest.raises(ClockSetBackError) as caught:
        certificates(directory, clock)
    assert "not valid before" in caught.value.why
    assert "timedatectl" in caught.value.remedy


def test_forcing_gets_out_of_certificates_that_a_wrong_clock_has_made(tmp_path: Path) -> None:
    directory, clock = prepared(tmp_path), Clock()
    mine = certificates(directory, clock)
    clock.time -= 10 * SECONDS_A_DAY
    material, _ = mine.examine(force=True)
    assert material is not None
    assert certificates(directory, clock).material.serial == material.serial


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 64, None])
def test_the_record_of_what_was_checked_is_dispensable(
    tmp_path: Path, damage: bytes | None
) -> None:
    directory = prepared(tmp_path)
    first = certificates(directory).material.serial
    if damage is None:
        (directory.pki / "verified.json").unlink()
    else:
        (directory.pki / "verified.json").write_bytes(damage)
    assert certificates(directory).material.serial == first


# --- Issued outside -------------------------------------------------------------------------------


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

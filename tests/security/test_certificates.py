"""The node's own certificates: issued, renewed, checked."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security.certificates import Certificates
from novacron.security.errors import CertificateError, ClockSetBackError, PeerRejectedError
from novacron.security.inspection import NODE_URI
from novacron.security.keyring import Keyring
from tests.security.issuing import der
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared
from tests.security.tls import NAMES, SECONDS_A_DAY, Clock, certificates, present, shake_hands


def test_the_first_boot_issues_a_certificate_with_the_nodes_names(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    mine = certificates(directory)
    names = present(directory).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        NODE_URI + NODE_ID,
        "urn:novacron:authority",
    ]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert b"PRIVATE KEY" not in (directory.pki / "ca.key").read_bytes()
    assert mine.status()["own_authority"] is True


def test_the_authority_is_known_by_the_hash_of_its_key_also_without_cryptography(
    tmp_path: Path, repository: Path
) -> None:
    directory = prepared(tmp_path)
    (known,) = certificates(directory).authority_hashes()
    authority = x509.load_pem_x509_certificate((directory.pki / "ca.pem").read_bytes())
    key = authority.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert known == hashlib.sha256(key).hexdigest()
    script = (
        "import sys; from pathlib import Path; from tests.security.again import again;"
        f"hashes = again(Path({str(tmp_path)!r}));"
        "assert not [name for name in sys.modules if name.startswith('cryptography')];"
        "print(*hashes)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=repository, timeout=60
    )
    assert (told.stdout.split(), told.stderr) == ([known], "")


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

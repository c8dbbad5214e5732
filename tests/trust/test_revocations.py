"""The list of revoked certificates: what is believed, and what is kept."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from novacron.data_directory import DataDirectory
from novacron.security.errors import PeerRejectedError, RevocationListError
from novacron.security.revocations import MOST_ENTRIES, Revocations
from tests.security.issuing import OutsideAuthority, der, pem
from tests.security.stand_ins import NODE_ID, prepared
from tests.security.tls import certificates


@pytest.fixture(scope="module")
def authority() -> OutsideAuthority:
    return OutsideAuthority("the cluster")


def listed(
    authority: OutsideAuthority, number: int | None, *serials: int, name: x509.Name | None = None
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name or authority.name)
        .last_update(now)
        .next_update(now + timedelta(days=1))
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def opened(directory: DataDirectory, authority: OutsideAuthority) -> Revocations:
    revocations = Revocations(directory)
    warnings = revocations.open_blocking(("hash",), lambda: (authority.certificate,))
    assert warnings == []
    return revocations


def test_a_newer_list_replaces_an_older_one_and_never_the_other_way(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    mine = opened(prepared(tmp_path), authority)
    first, second = listed(authority, 7, 1), listed(authority, 8, 1, 2)
    assert mine.offer_blocking(second)
    assert not mine.offer_blocking(first)
    assert not mine.offer_blocking(second)
    assert mine.current.number == 8
    assert mine.find("2") is not None
    assert mine.path.read_bytes() == second


def test_a_list_of_the_same_number_changes_nothing(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    mine = opened(prepared(tmp_path), authority)
    mine.offer_blocking(listed(authority, 3, 1))
    assert not mine.offer_blocking(listed(authority, 3))
    assert mine.find("1") is not None


@pytest.mark.parametrize("kind", ["other", "same name", "no number", "damaged", "zero", "huge"])
def test_a_list_that_is_not_the_authoritys_is_refused(
    tmp_path: Path, authority: OutsideAuthority, kind: str
) -> None:
    mine = opened(prepared(tmp_path), authority)
    mine.offer_blocking(listed(authority, 1, 1))
    other = OutsideAuthority("the other")
    offered = {
        "other": listed(other, 9),
        "same name": listed(other, 9, name=authority.name),
        "no number": listed(authority, None),
        "damaged": listed(authority, 9, 5)[:-60] + b"AAAA\n-----END X509 CRL-----\n",
        "zero": listed(authority, 0),
        "huge": b"-----BEGIN X509 CRL-----\n" + b"A" * 2**20,
    }[kind]
    with pytest.raises(RevocationListError):
        mine.offer_blocking(offered)
    assert mine.current.number == 1
    assert mine.find("1") is not None


def test_a_list_that_somebody_changed_is_refused(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    mine = opened(prepared(tmp_path), authority)
    signed = x509.load_pem_x509_crl(listed(authority, 9, 0x112233445566778899))
    data = signed.public_bytes(serialization.Encoding.DER)
    changed = data.replace(bytes.fromhex("112233445566778899"), bytes.fromhex("112233445566778898"))
    assert changed != data
    forged = x509.load_der_x509_crl(changed).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RevocationListError, match="not signed by"):
        mine.offer_blocking(forged)


def test_a_longer_list_than_there_may_be_is_refused(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    mine = opened(prepared(tmp_path), authority)
    with pytest.raises(RevocationListError, match=f"more than {MOST_ENTRIES} entries"):
        mine.offer_blocking(listed(authority, 2, *range(1, MOST_ENTRIES + 2)))


def test_what_another_process_wrote_is_taken_over(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    directory = prepared(tmp_path)
    mine, other = opened(directory, authority), opened(directory, authority)
    assert not mine.changed_on_disk
    other.offer_blocking(listed(authority, 1, 10))
    assert mine.changed_on_disk
    assert mine.refresh_blocking()
    assert mine.find("a") is not None
    assert not mine.refresh_blocking()


def test_an_older_list_put_in_its_place_does_not_bring_anybody_back_while_the_node_runs(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    mine = opened(prepared(tmp_path), authority)
    mine.offer_blocking(listed(authority, 2, 10))
    mine.path.write_bytes(listed(authority, 1))
    assert not mine.refresh_blocking()
    assert mine.find("a") is not None
    mine.path.unlink()
    assert not mine.refresh_blocking()
    assert mine.find("a") is not None


def test_a_damaged_list_is_set_aside_and_the_node_says_what_that_means(
    tmp_path: Path, authority: OutsideAuthority
) -> None:
    directory = prepared(tmp_path)
    opened(directory, authority).offer_blocking(listed(authority, 2, 10))
    (directory.pki / "crl.pem").write_bytes(b"what was it")
    (warning,) = Revocations(directory).open_blocking((), lambda: (authority.certificate,))
    assert "revoked certificates pass" in warning
    assert [path.name.partition(".2")[0] for path in directory.quarantine_area.iterdir()] == [
        "crl.pem"
    ]


def test_a_revoked_certificate_is_refused_with_the_time_and_the_reason(tmp_path: Path) -> None:
    outside = OutsideAuthority("the cluster")
    mine = certificates(prepared(tmp_path))
    theirs, _ = outside.issue([f"urn:novacron:node:{NODE_ID}"])
    mine._roots = ([outside.certificate], [])
    assert mine.identify(der(theirs)).node_id == NODE_ID
    mine.revocations.offer_blocking(listed(outside, 1, theirs.serial_number))
    with pytest.raises(PeerRejectedError, match=f"of node {NODE_ID} was revoked at 20"):
        mine.identify(der(theirs))


def test_the_next_boot_knows_the_list_without_cryptography(
    tmp_path: Path, authority: OutsideAuthority, repository: Path
) -> None:
    directory = prepared(tmp_path / "node")
    (tmp_path / "ca.pem").write_bytes(pem(authority.certificate))
    opened(directory, authority).offer_blocking(listed(authority, 2, 10, 11))
    script = (
        "import sys; from pathlib import Path;"
        "from novacron.data_directory import DataDirectory;"
        "from novacron.security.revocations import Revocations;"
        f"mine = Revocations(DataDirectory(Path({str(directory.root)!r})));"
        "assert mine.open_blocking(('hash',), None) == [];"
        "assert not [name for name in sys.modules if name.startswith('cryptography')];"
        "print(mine.current.number, *sorted(mine.current.entries))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=repository, timeout=60
    )
    assert (told.stdout.split(), told.stderr) == (["2", "a", "b"], "")

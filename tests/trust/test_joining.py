"""What a join leaves on the disk of the machine that joins, wherever it is cut short."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.config.schema import SecuritySettings, Settings
from novacron.data_directory import DataDirectory
from novacron.security import joining
from novacron.security.certificates import Certificates
from novacron.security.errors import CertificateError, RequestRefusedError
from novacron.security.inspection import key_hash
from novacron.security.join_token import JoinTokenText
from novacron.security.joined_material import read_joined
from novacron.security.joining import Asked, Granted
from novacron.security.keyring import Keyring
from novacron.security.names import canonical_name
from novacron.security.requests import make_request
from novacron.trust.joining import join
from tests.security.issuing import OutsideAuthority, pem
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared, tree
from tests.security.tls import SECONDS_A_DAY, certificates
from tests.trust.cluster import new_key
from tests.trust.test_issuer import Holder


class Cut(BaseException):
    """The process is gone."""


@pytest.fixture
def holder(tmp_path: Path) -> Holder:
    return Holder(tmp_path / "authority")


def grant_to(holder: Holder, directory: DataDirectory) -> Granted:
    key, key_text = new_key()
    authority = key_hash(holder.issuer.authority.certificate().public_key())
    grant = holder.issuer.join(holder.token(OTHER_ID), make_request(key, OTHER_ID, ["localhost"]))
    asked = Asked(OTHER_ID, authority, key_text)
    joining.write_asked(directory, asked)
    granted = Granted(asked, grant.certificate, grant.authority, "", "192.0.2.1:7400", 1.0, (), ())
    joining.write_granted(directory, granted)
    return granted


def opened(directory: DataDirectory, holder: Holder) -> Certificates:
    """As a boot opens them, by the authority's clock."""
    return certificates(directory, holder.clock, OTHER_ID, ("localhost",))


def test_what_was_granted_is_in_place_and_the_key_nowhere_else(
    tmp_path: Path, holder: Holder
) -> None:
    directory = prepared(tmp_path / "node")
    granted = grant_to(holder, directory)
    assert joining.finish(directory)
    assert not joining.finish(directory)
    assert not joining.journal(directory).exists()
    joined = read_joined(directory)
    assert joined is not None
    assert (joined.authority, joined.source) == (granted.asked.authority, "192.0.2.1:7400")
    assert (directory.pki / "node.pem").stat().st_mode & 0o777 == 0o600
    holders = [name for name, data in tree(directory.root).items() if b"PRIVATE KEY" in data]
    assert holders == ["pki/node.pem"]
    mine = opened(directory, holder)
    assert mine.authority_hashes() == (granted.asked.authority,)
    assert mine.joined is not None
    assert mine.status()["own_authority"] is False


def test_an_authority_of_its_own_is_set_aside_and_not_removed(
    tmp_path: Path, holder: Holder
) -> None:
    directory = prepared(tmp_path / "node")
    opened(directory, holder)
    before = tree(directory.pki)
    grant_to(holder, directory)
    joining.finish(directory)
    aside = {path.name.partition(".2")[0]: path.read_bytes() for path in quarantined(directory)}
    assert aside == {name: before[name] for name in ("ca.key", "ca.pem", "node.pem")}
    assert not (directory.pki / "ca.key").exists()


def quarantined(directory: DataDirectory) -> Iterator[Path]:
    yield from directory.quarantine_area.iterdir()


def test_cut_short_at_any_step_a_boot_goes_on_and_nothing_is_lost(
    tmp_path: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = prepared(tmp_path / "template")
    opened(template, holder)
    old = tree(template.pki)
    grant_to(holder, template)
    import os
    import shutil

    steps = 0
    real = os.rename
    while True:
        directory = DataDirectory(tmp_path / f"cut-{steps}")
        shutil.copytree(template.root, directory.root)
        left = steps

        def renamed(source: object, target: object) -> None:
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            real(source, target)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", renamed)
            try:
                joining.finish(directory)
            except Cut:
                cut = True
            else:
                cut = False
        mine = opened(directory, holder)
        assert mine.material.node_id == OTHER_ID
        assert mine.joined is not None
        kept = [path.read_bytes() for path in quarantined(directory)]
        for name in ("ca.key", "ca.pem", "node.pem"):
            assert old[name] in kept
        steps += 1
        if not cut:
            break
    assert steps > 5


def test_an_expired_certificate_says_that_the_node_has_to_join_again(
    tmp_path: Path, holder: Holder
) -> None:
    directory = prepared(tmp_path / "node")
    grant_to(holder, directory)
    opened(directory, holder)
    holder.clock.time += 91 * SECONDS_A_DAY
    with pytest.raises(CertificateError, match="it expired at") as caught:
        opened(directory, holder)
    assert "novacron join" in caught.value.remedy
    assert f"--node-id {OTHER_ID}" in caught.value.remedy


@pytest.mark.parametrize("name", ["node.pem", "ca.pem", "joined.json"])
def test_a_part_that_is_lost_or_damaged_is_named(tmp_path: Path, holder: Holder, name: str) -> None:
    directory = prepared(tmp_path / "node")
    grant_to(holder, directory)
    joining.finish(directory)
    (directory.pki / name).write_bytes(b"\0" * 40)
    with pytest.raises(CertificateError, match=name.replace(".", r"\.")):
        opened(directory, holder)
    (directory.pki / name).unlink()
    if name != "joined.json":
        with pytest.raises(CertificateError, match=f"cannot find .*{name}"):
            opened(directory, holder)


def test_a_boot_before_the_grant_goes_on_as_it_was(tmp_path: Path, holder: Holder) -> None:
    directory = prepared(tmp_path / "node")
    asked = Asked(OTHER_ID, "f" * 64, new_key()[1])
    joining.write_asked(directory, asked)
    mine = opened(directory, holder)
    assert mine.joined is None
    assert joining.read_asked(directory) == asked


def test_a_damaged_journal_is_no_obstacle(tmp_path: Path, holder: Holder) -> None:
    directory = prepared(tmp_path / "node")
    joining.journal(directory).write_bytes(b"{")
    assert joining.read_asked(directory) is None
    assert not joining.finish(directory)
    assert opened(directory, holder).joined is None


def test_a_new_authoritys_certificate_is_taken_only_with_the_same_key(
    tmp_path: Path, holder: Holder
) -> None:
    directory = prepared(tmp_path / "node")
    grant_to(holder, directory)
    mine = opened(directory, holder)
    joined = mine.joined
    assert joined is not None
    stranger = Holder(tmp_path / "stranger")
    with pytest.raises(CertificateError, match="not of the authority that this node has joined"):
        joined.install_authority((stranger.directory.pki / "ca.pem").read_bytes())
    assert not joined.install_authority((holder.directory.pki / "ca.pem").read_bytes())
    later = holder.issuer.authority.ensure(
        OTHER_ID, holder.clock.time + SECONDS_A_DAY, 36500 * SECONDS_A_DAY, 2 * SECONDS_A_DAY
    )
    assert joined.install_authority(later)
    material, _ = mine.examine()
    assert material is not None
    assert material.authorities == mine.authority_hashes()


def test_outside_certificates_go_before_a_join(tmp_path: Path, holder: Holder) -> None:
    directory = prepared(tmp_path / "node")
    grant_to(holder, directory)
    joining.finish(directory)
    keyring = Keyring(directory)
    keyring.open()
    mine = Certificates(
        directory, SecuritySettings(certificate="/nowhere"), keyring, (), now=holder.clock
    )
    with pytest.raises(CertificateError, match="certificates from outside"):
        mine.open(OTHER_ID)


def test_a_name_in_another_spelling_is_not_asked_for_for_ever(
    tmp_path: Path, holder: Holder
) -> None:
    directory = prepared(tmp_path / "node")
    key, key_text = new_key()
    authority = key_hash(holder.issuer.authority.certificate().public_key())
    said = ("B.Example.", "2001:0DB8::7", "::ffff:192.0.2.7", *(f"n{i}.example" for i in range(20)))
    request = make_request(key, OTHER_ID, ["localhost", *map(canonical_name, said)])
    grant = holder.issuer.join(holder.token(OTHER_ID), request)
    asked = Asked(OTHER_ID, authority, key_text)
    joining.write_granted(
        directory, Granted(asked, grant.certificate, grant.authority, "", "x", 1.0, (), said)
    )
    joining.finish(directory)
    mine = opened(directory, holder)
    assert mine.joined is not None
    assert set(mine.material.names) >= {"b.example", "2001:db8::7", "192.0.2.7"}
    assert mine.joined.due(mine.material) > holder.clock.time


def test_names_that_no_certificate_can_have_are_refused_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    token = JoinTokenText("0" * 16, "ncj_…", "0" * 64)
    for names, why in (
        (["bücher.example"], "'bücher.example' is no host name"),
        ([f"n{i}.example" for i in range(20)], "it would be for 23 names, and 16 are the most"),
    ):
        with pytest.raises(RequestRefusedError, match=why):
            join(DataDirectory(tmp_path), Settings(), ("192.0.2.1", 7400), token, names=names)
    assert not joining.journal(DataDirectory(tmp_path)).exists()


def renewed_for(holder: Holder, mine: Certificates) -> tuple[bytes, bytes]:
    """A new key for the joined node, and the certificate that it was granted."""
    key, text = new_key()
    request = make_request(key, OTHER_ID, ["localhost"])
    grant = holder.issuer.renew(OTHER_ID, mine.material.serial, request)
    return text.encode(), grant.certificate.encode()


UNFINISHED = b"-----BEGIN X509 CRL-----\n"
UNREADABLE = b"-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n"


@pytest.mark.parametrize(("before", "after"), [(b"", UNFINISHED), (UNREADABLE, b"")])
def test_a_peer_that_passes_a_certificate_on_adds_nothing_that_tls_chokes_on(
    tmp_path: Path, holder: Holder, before: bytes, after: bytes
) -> None:
    directory = prepared(tmp_path / "node")
    grant_to(holder, directory)
    mine = opened(directory, holder)
    assert mine.joined is not None
    key, certificate = renewed_for(holder, mine)
    mine.joined.install(key, before + certificate + after)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(directory.pki / "node.pem")
    assert opened(directory, holder).material.serial != mine.material.serial


def test_a_peer_that_passes_the_authority_on_adds_no_authority_of_its_own(
    tmp_path: Path, holder: Holder
) -> None:
    directory = prepared(tmp_path / "node")
    grant_to(holder, directory)
    mine = opened(directory, holder)
    assert mine.joined is not None
    # OpenSSL reads this kind of block, and what checks the other certificate passes over it.
    rogue = pem(OutsideAuthority("rogue").certificate)
    hidden = rogue.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")
    holder.clock.time += 100 * SECONDS_A_DAY
    data = holder.issuer.authority.ensure(NODE_ID, holder.clock.time, 1e12, 0.0)
    assert mine.joined.install_authority(hidden + data + hidden)
    trusting = ssl.create_default_context(cafile=directory.pki / "ca.pem")
    (trusted,) = trusting.get_ca_certs()
    assert "rogue" not in str(trusted)

"""What the node that holds the authority's key issues and takes back, and what it refuses."""

from __future__ import annotations

import ipaddress
import re
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from novacron.config.schema import SecuritySettings
from novacron.security import inspection
from novacron.security.errors import (
    CertificateError,
    JoinConflictError,
    JoinTokenError,
    NotAuthorityError,
    RequestRefusedError,
    TokenLimitError,
    TokenNotFoundError,
)
from novacron.security.inspection import NODE_URI
from novacron.security.issuer import MOST_A_DAY, Grant, Issuer
from novacron.security.join_tokens import JoinTokens
from novacron.security.keyring import Keyring
from novacron.security.requests import make_request
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared
from tests.security.tls import SECONDS_A_DAY, Clock, certificates
from tests.trust.cluster import new_key, request_for
from tests.trust.test_requests import signed

THIRD_ID = "11111111-2222-4333-8444-555555555555"


class Holder:
    """The authority's node."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.directory = prepared(root)
        self.certificates = certificates(
            self.directory, self.clock, names=("localhost", "a.example")
        )
        self.tokens = JoinTokens(self.directory, now=self.clock)
        self.revocations = self.certificates.revocations
        self.issuer = self.again()

    def again(self) -> Issuer:
        keyring = Keyring(self.directory)
        keyring.open()
        return Issuer(
            self.directory,
            SecuritySettings(),
            keyring,
            self.tokens,
            self.revocations,
            NODE_ID,
            now=self.clock,
        )

    def token(self, node_id: str | None = None) -> str:
        return self.tokens.create_blocking(node_id=node_id)[0]

    def join(self, node_id: str, *names: str) -> Grant:
        return self.issuer.join(self.token(), request_for(node_id, *names))


@pytest.fixture
def holder(tmp_path: Path) -> Holder:
    return Holder(tmp_path)


def parsed(grant: Grant) -> x509.Certificate:
    return x509.load_pem_x509_certificate(grant.certificate.encode())


def test_a_certificate_is_for_the_key_and_the_node_that_asked(holder: Holder) -> None:
    key, _ = new_key()
    grant = holder.issuer.join(
        holder.token(), make_request(key, OTHER_ID, ["b.example", "localhost"])
    )
    certificate = parsed(grant)
    assert certificate.public_key() == key.public_key()
    assert inspection.node_name(certificate) == OTHER_ID
    assert not inspection.holds_authority(certificate)
    assert not inspection.is_authority(certificate)
    assert set(inspection.host_names(certificate)) == {"b.example", "localhost"}
    assert grant.not_after == pytest.approx(holder.clock.time + 90 * SECONDS_A_DAY, abs=1)
    assert holder.certificates.identify(certificate.public_bytes(Encoding.DER)).node_id == OTHER_ID


def test_the_same_request_has_the_same_answer_and_another_key_has_none(holder: Holder) -> None:
    token, request = holder.token(), request_for(OTHER_ID)
    first = holder.issuer.join(token, request)
    assert holder.again().join(token, request) == first
    for other in (request_for(OTHER_ID), request_for(THIRD_ID)):
        with pytest.raises((JoinTokenError, JoinConflictError)):
            holder.issuer.join(token, other)
    assert len(holder.issuer.ledger.read()) == 1


def test_an_answer_is_not_given_again_once_the_token_has_expired_or_was_revoked(
    holder: Holder,
) -> None:
    token, request = holder.token(), request_for(OTHER_ID)
    holder.issuer.join(token, request)
    holder.tokens.revoke_blocking(token)
    with pytest.raises(JoinTokenError, match="revoked"):
        holder.issuer.join(token, request)


def test_of_two_who_use_a_token_at_once_one_is_issued_a_certificate(holder: Holder) -> None:
    token = holder.token()
    start = threading.Barrier(2)
    outcomes: list[str] = []

    def use(node_id: str) -> None:
        issuer, request = holder.again(), request_for(node_id)
        start.wait()
        try:
            issuer.join(token, request)
            outcomes.append("issued")
        except JoinTokenError:
            outcomes.append("refused")

    threads = [threading.Thread(target=use, args=(id,)) for id in (OTHER_ID, THIRD_ID)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["issued", "refused"]
    assert len(holder.issuer.ledger.read()) == 1


def test_a_nodes_id_stays_one_keys_until_it_is_revoked_or_expires(holder: Holder) -> None:
    holder.join(OTHER_ID)
    with pytest.raises(JoinConflictError, match=f"there is a node {OTHER_ID} already"):
        holder.join(OTHER_ID)
    with pytest.raises(JoinConflictError, match="cannot join itself"):
        holder.join(NODE_ID)
    # The token was not used up by a request that is refused.
    assert {entry["state"] for entry in holder.tokens.list()} == {"used", "active"}
    holder.issuer.revoke(OTHER_ID)
    holder.join(OTHER_ID)
    holder.clock.time += 91 * SECONDS_A_DAY
    holder.join(OTHER_ID)


def test_a_token_that_names_the_node_lets_it_come_back_with_another_key(holder: Holder) -> None:
    holder.join(OTHER_ID)
    grant = holder.issuer.join(holder.token(OTHER_ID), request_for(OTHER_ID))
    assert grant.node_id == OTHER_ID


def test_a_key_that_was_revoked_or_is_another_nodes_is_refused(holder: Holder) -> None:
    key, _ = new_key()
    holder.issuer.join(holder.token(), make_request(key, OTHER_ID, ()))
    with pytest.raises(JoinConflictError, match=f"its key is that of node {OTHER_ID}"):
        holder.issuer.join(holder.token(), make_request(key, THIRD_ID, ()))
    holder.issuer.revoke(OTHER_ID)
    with pytest.raises(RequestRefusedError, match="a certificate for its key was revoked"):
        holder.issuer.join(holder.token(), make_request(key, OTHER_ID, ()))


def test_a_name_is_the_first_nodes_that_had_it(holder: Holder) -> None:
    assert holder.join(OTHER_ID, "b.example", "localhost").left_out == ()
    grant = holder.join(THIRD_ID, "a.example", "b.example", "c.example", "localhost")
    assert set(grant.left_out) == {"a.example", "b.example"}
    assert set(inspection.host_names(parsed(grant))) == {"c.example", "localhost"}
    holder.issuer.revoke(OTHER_ID)
    renewed = holder.issuer.renew(THIRD_ID, grant.serial, request_for(THIRD_ID, "b.example"))
    assert renewed.left_out == ()


def test_an_address_is_one_name_however_it_is_written(holder: Holder) -> None:
    own = x509.UniformResourceIdentifier(NODE_URI + THIRD_ID)
    holder.join(OTHER_ID, "192.0.2.7", "2001:db8::7")
    spelled = [
        (x509.DNSName("2001:0db8::7"), RequestRefusedError),
        (x509.DNSName("2001:db8::7%1"), RequestRefusedError),
        (x509.IPAddress(ipaddress.ip_address("::ffff:192.0.2.7")), None),
    ]
    for name, refused in spelled:
        token = holder.token()
        if refused is not None:
            with pytest.raises(refused, match="is an address"):
                holder.issuer.join(token, signed(own, name))
            continue
        grant = holder.issuer.join(token, signed(own, name))
        assert grant.left_out == ("192.0.2.7",)
        assert inspection.host_names(parsed(grant)) == []


def test_a_renewal_needs_no_token_and_takes_a_new_key(holder: Holder) -> None:
    first = holder.join(OTHER_ID)
    request = request_for(OTHER_ID)
    second = holder.issuer.renew(OTHER_ID, first.serial, request)
    assert second.serial != first.serial
    holder.clock.time += 2 * SECONDS_A_DAY
    # Repeated by whoever has seen it: what it was answered then.
    assert holder.issuer.renew(OTHER_ID, first.serial, request) == second
    with pytest.raises(RequestRefusedError, match=f"it is for node {THIRD_ID}"):
        holder.issuer.renew(OTHER_ID, first.serial, request_for(THIRD_ID))
    holder.issuer.revoke(first.serial)
    with pytest.raises(RequestRefusedError, match="is revoked"):
        holder.issuer.renew(OTHER_ID, first.serial, request_for(OTHER_ID))


def test_a_node_that_asks_all_the_time_is_slowed_down(holder: Holder) -> None:
    serial = holder.join(OTHER_ID).serial
    for _ in range(MOST_A_DAY - 1):
        serial = holder.issuer.renew(OTHER_ID, serial, request_for(OTHER_ID)).serial
    with pytest.raises(TokenLimitError, match="12 in the last 24 hours"):
        holder.issuer.renew(OTHER_ID, serial, request_for(OTHER_ID))
    holder.join(THIRD_ID)
    holder.clock.time += SECONDS_A_DAY
    holder.issuer.renew(OTHER_ID, serial, request_for(OTHER_ID))


def test_every_valid_certificate_of_a_node_is_revoked_and_the_list_grows(holder: Holder) -> None:
    first = holder.join(OTHER_ID)
    second = holder.issuer.renew(OTHER_ID, first.serial, request_for(OTHER_ID))
    other = holder.join(THIRD_ID)
    revoked = holder.issuer.revoke(OTHER_ID[:8], "key-compromise")
    assert revoked == sorted([first.serial, second.serial])
    assert holder.revocations.current.number == 1
    found = holder.revocations.find(first.serial)
    assert found is not None
    assert found.reason == "keyCompromise"
    assert holder.revocations.find(other.serial) is None
    holder.issuer.revoke(other.serial)
    assert holder.revocations.current.number == 2
    assert set(holder.revocations.current.entries) == {first.serial, second.serial, other.serial}
    states = {entry.serial: entry.state(holder.clock.time) for entry in holder.issuer.ledger.read()}
    assert set(states.values()) == {"revoked"}


def test_what_has_expired_leaves_the_list(holder: Holder) -> None:
    holder.issuer.revoke(holder.join(OTHER_ID).serial)
    holder.clock.time += 92 * SECONDS_A_DAY
    kept = holder.join(THIRD_ID).serial
    holder.issuer.revoke(kept)
    assert set(holder.revocations.current.entries) == {kept}


def test_a_list_goes_on_from_one_that_a_lost_ledger_does_not_know(holder: Holder) -> None:
    gone = holder.join(OTHER_ID).serial
    holder.issuer.revoke(gone)
    # Restored from a backup of before the join.
    holder.issuer.ledger.path.unlink()
    kept = holder.join(THIRD_ID).serial
    holder.issuer.revoke(kept)
    assert holder.revocations.current.number == 2
    assert set(holder.revocations.current.entries) == {gone, kept}


def test_what_was_never_issued_is_not_revoked(holder: Holder) -> None:
    holder.join(OTHER_ID)
    for target in ("", "abc", "no-such", THIRD_ID):
        with pytest.raises(TokenNotFoundError):
            holder.issuer.revoke(target)
    with pytest.raises(JoinConflictError, match="this node's own certificate"):
        holder.issuer.revoke(NODE_ID)
    with pytest.raises(JoinConflictError, match="this node's own certificate"):
        holder.issuer.revoke(NODE_ID[:8])
    assert holder.revocations.current.number == 0


def test_a_serial_is_known_as_other_tools_print_it(holder: Holder) -> None:
    serial = holder.join(OTHER_ID).serial
    colons = ":".join(re.findall("..", f"00{serial}".upper().zfill(44)))
    assert holder.issuer.revoke(colons) == [serial]
    assert {entry.state(holder.clock.time) for entry in holder.issuer.ledger.read()} == {"revoked"}
    own = f"{holder.issuer.own_certificate().serial_number:x}"
    with pytest.raises(JoinConflictError, match="this node's own certificate"):
        holder.issuer.revoke("00" + own)
    assert holder.revocations.find(own) is None
    for target in ("0" * 40, "f" * 40, "f" * 44):
        with pytest.raises(TokenNotFoundError):
            holder.issuer.revoke(target)


def test_a_damaged_ledger_is_not_gone_on_without(holder: Holder) -> None:
    holder.join(OTHER_ID)
    holder.issuer.ledger.path.write_bytes(b"{}")
    with pytest.raises(CertificateError, match="cannot read the list of issued certificates"):
        holder.join(THIRD_ID)
    assert sorted(entry["state"] for entry in holder.tokens.list()) == ["active", "used"]


def test_a_node_without_the_authoritys_key_says_where_to_go(holder: Holder) -> None:
    holder.issuer.authority.key_path.unlink()
    for act in (
        lambda: holder.join(OTHER_ID),
        lambda: holder.issuer.renew(OTHER_ID, "1", b""),
        lambda: holder.issuer.revoke(OTHER_ID),
    ):
        with pytest.raises(NotAuthorityError, match="pki init"):
            act()

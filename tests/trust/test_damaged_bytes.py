"""Whatever bytes come as a request, a certificate or a list, there is an answer in words."""

from __future__ import annotations

import base64
import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.errors import SecurityError
from novacron.security.inspection import NODE_URI, key_hash, load_certificates
from novacron.security.requests import check_request
from novacron.security.revocations import check_list
from novacron.trust.authority_client import check_presented
from tests.security.issuing import OutsideAuthority, der
from tests.security.stand_ins import OTHER_ID
from tests.trust.cluster import request_for
from tests.trust.test_issuer import Holder

# A serial that is not positive is refused by the next release of the library, and read by this one.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


class Originals:
    def __init__(self, root: Path) -> None:
        holder = Holder(root)
        self.holder = holder
        holder.join(OTHER_ID, "b.example", "192.0.2.7")
        holder.issuer.revoke(OTHER_ID)
        request = x509.load_pem_x509_csr(request_for(OTHER_ID, "b.example", "192.0.2.7"))
        found = x509.load_pem_x509_crl(holder.revocations.current.pem)
        self.authority = holder.issuer.authority.certificate()
        self.leaf = holder.issuer.own_certificate().public_bytes(Encoding.DER)
        self.root = self.authority.public_bytes(Encoding.DER)
        ages = timedelta(days=9000)  # whatever the holder's clock says
        names = [NODE_URI + OTHER_ID]
        self.foreign = der(OutsideAuthority().issue(names, begins=-ages, ends=ages)[0])
        self.request = request.public_bytes(Encoding.DER)
        self.list = found.public_bytes(Encoding.DER)

    def read_all(self, place: float, value: int, length: int) -> None:
        """*length* bytes of each, at *place* (0 to 1), are a byte of *value* instead."""

        def damaged(data: bytes) -> bytes:
            at = int(place * len(data))
            return data[:at] + bytes((value,)) + data[at + length :]

        holder, now = self.holder, self.holder.clock.time
        leaf, root = damaged(self.leaf), damaged(self.root)
        pin = key_hash(self.authority.public_key())
        for read in (
            lambda: check_request(pem("CERTIFICATE REQUEST", damaged(self.request))),
            lambda: check_list(pem("X509 CRL", damaged(self.list)), [self.authority]),
            lambda: holder.certificates.identify(leaf),
            lambda: holder.certificates.identify(self.foreign, [leaf, root]),
            lambda: check_presented([leaf, self.root], pin, "there", now),
            lambda: check_presented([self.leaf, root], pin, "there", now),
            lambda: load_certificates(pem("CERTIFICATE", leaf), "there", ""),
        ):
            with contextlib.suppress(SecurityError):
                read()


def pem(kind: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n".encode()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("authority"))


def test_a_byte_anywhere_may_be_another_one(originals: Originals) -> None:
    longest = max(map(len, (originals.leaf, originals.root, originals.request, originals.list)))
    for at in range(0, longest, 2):
        originals.read_all(at / longest, 3, 1)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.integers(0, 4))
def test_any_damage_is_refused_or_harmless(
    originals: Originals, place: float, value: int, length: int
) -> None:
    originals.read_all(place, value, length)


def test_a_version_that_is_not_there_yet_is_refused_everywhere(originals: Originals) -> None:
    def later(data: bytes) -> bytes:
        changed = data.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)
        assert changed != data
        return changed

    holder = originals.holder
    foreign, leaf = originals.foreign, later(originals.leaf)
    for read in (
        lambda: holder.certificates.identify(leaf),
        lambda: holder.certificates.identify(foreign, [leaf, later(originals.root)]),
        lambda: check_presented([leaf], "0" * 64, "there", holder.clock.time),
        lambda: load_certificates(pem("CERTIFICATE", leaf), "there", ""),
    ):
        with pytest.raises(SecurityError):
            read()

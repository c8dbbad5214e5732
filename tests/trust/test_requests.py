"""What an authority makes of a certificate request."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from novacron.security.errors import RequestRefusedError
from novacron.security.inspection import AUTHORITY_URI, NODE_URI, key_hash
from novacron.security.requests import check_request, make_request
from tests.security.stand_ins import NODE_ID, OTHER_ID

OWN = x509.UniformResourceIdentifier(NODE_URI + NODE_ID)


def signed(*names: x509.GeneralName, key: object = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    private = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, algorithm).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def test_what_a_node_asks_for_is_what_the_authority_reads() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = check_request(make_request(key, NODE_ID, ["b.example", "192.0.2.7", "2001:db8::7"]))
    assert asked.node_id == NODE_ID
    assert asked.names == ("b.example", "192.0.2.7", "2001:db8::7")
    assert asked.key_hash == key_hash(key.public_key())
    assert check_request(signed(OWN, key=ec.generate_private_key(ec.SECP384R1()))).names == ()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no PEM certificate request"),
        (b"x" * 20_000, "larger than"),
        (signed(), "it names nobody"),
        (signed(x509.DNSName("a.example")), "not exactly one name"),
        (signed(OWN, x509.UniformResourceIdentifier(NODE_URI + OTHER_ID)), "not exactly one name"),
        (signed(OWN, x509.UniformResourceIdentifier(AUTHORITY_URI)), "not exactly one name"),
        (signed(x509.UniformResourceIdentifier(AUTHORITY_URI)), "not exactly one name"),
        (signed(x509.UniformResourceIdentifier(NODE_ID)), "not exactly one name"),
        (signed(x509.UniformResourceIdentifier(NODE_URI + NODE_ID.upper())), "not exactly one"),
        (signed(x509.UniformResourceIdentifier(NODE_URI + "x")), "not exactly one name"),
        (signed(OWN, x509.DNSName("*.example")), "is no host's name"),
        (signed(OWN, x509.DNSName("a..example")), "is no host's name"),
        (signed(OWN, x509.DNSName("a.example.")), "is no host's name"),
        (signed(OWN, x509.DNSName("a b")), "is no host's name"),
        (signed(OWN, x509.DNSName("2001:db8:0::7")), "is an address, and asked for as a host's"),
        (signed(OWN, x509.DNSName("2001:db8::7%eth0")), "is an address, and asked for as a host's"),
        (signed(OWN, x509.DNSName("192.0.2.7")), "is an address, and asked for as a host's"),
        (signed(OWN, x509.RFC822Name("a@example")), "neither a host's nor a node's"),
        (signed(OWN, x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))), "neither a host's"),
        (signed(OWN, *(x509.DNSName(f"n{i}.example") for i in range(17))), "17 host names"),
        (signed(OWN, key=ed25519.Ed25519PrivateKey.generate()), "not ECDSA"),
        (signed(OWN, key=rsa.generate_private_key(65537, 2048)), "not ECDSA"),
        (signed(OWN, key=ec.generate_private_key(ec.SECP521R1())), "P-256 or P-384"),
    ],
)
def test_anything_else_is_refused_in_words(data: bytes, why: str) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        check_request(data)
    assert why in caught.value.why


def test_a_request_that_somebody_changed_is_refused() -> None:
    der = x509.load_pem_x509_csr(signed(OWN)).public_bytes(serialization.Encoding.DER)
    changed = der.replace(NODE_ID.encode(), OTHER_ID.encode())
    pem = x509.load_der_x509_csr(changed).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RequestRefusedError, match="not signed by the key it is for"):
        check_request(pem)

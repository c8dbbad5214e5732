"""What peers say to each other about trust: bodies of requests on their session, strict msgpack maps.

``trust.state``      what each of the two knows; asked when a session begins and when that has changed
``trust.crl``        the list of revoked certificates, as PEM; empty where there is none
``trust.authority``  the authority's certificate, as PEM
``trust.sign``       a request for a new certificate, which a peer may pass on to the authority's node
``trust.roots``      the document that lists which authorities are trusted; empty where there is none
``trust.report``     that a node has taken that document, which a peer may pass on as well
"""

from __future__ import annotations

from typing import Any, Final

from novacron.protocol.codes import ViolationError
from novacron.protocol.frames import decode_payload, encode_payload
from novacron.record import Record
from novacron.trust.errors import TrustMessageError

STATE: Final = "trust.state"
REVOKED: Final = "trust.crl"
AUTHORITY: Final = "trust.authority"
SIGN: Final = "trust.sign"
ROOTS: Final = "trust.roots"
REPORT: Final = "trust.report"

MOST_REQUEST: Final = 16 * 1024
MOST_CERTIFICATE: Final = 16 * 1024
_PROOF: Final = b"novacron: renew my certificate with this request\0"
"""Before what is signed, so that the signature means nothing else anywhere."""
_REPORTED: Final = b"novacron: I trust the authorities of the list with this number\0"


class State(Record):
    number: int
    """Of the list of revoked certificates; 0 for none."""
    issues: bool
    """Whether this node holds the authority's key."""
    authority_ends: int
    """When the authority's certificate ends, in seconds since the epoch: the later is the newer."""
    roots: int
    """Number of the document that lists which authorities are trusted; 0 for none."""
    issuer: str
    """Hash of the key that has issued the node's present certificate."""


class Sign(Record):
    request: bytes
    """PEM."""
    certificate: bytes
    """DER; the asker's present one."""
    proof: bytes
    """Its key's signature (ECDSA, SHA-256) of the request: so it does not matter who passes it on."""
    passed_on: bool


class Signed(Record):
    certificate: bytes
    """PEM; behind it the handover, where the authority's key was replaced lately."""
    left_out: tuple[str, ...]


class Report(Record):
    number: int
    certificate: bytes
    """DER; the node's present one."""
    proof: bytes
    """Its key's signature (ECDSA, SHA-256) of the number."""
    passed_on: bool


def proof_text(request: bytes) -> bytes:
    """What is signed for :attr:`Sign.proof`."""
    return _PROOF + request


def report_text(number: int) -> bytes:
    """What is signed for :attr:`Report.proof`."""
    return _REPORTED + number.to_bytes(8, "big")


def pack(message: State | Sign | Signed | Report) -> bytes:
    body = message._asdict()
    return encode_payload({key: list(v) if type(v) is tuple else v for key, v in body.items()})


def unpack_state(body: bytes) -> State:
    """
    Raises:
      TrustMessageError: it is none.
    """
    value = _map(body, set(State._fields))
    state = State(**value)
    if (
        not _whole(state.number)
        or not _whole(state.authority_ends)
        or not _whole(state.roots)
        or type(state.issues) is not bool
        or type(state.issuer) is not str
        or len(state.issuer) > 64
    ):
        raise _bad("a field of a state is not what it has to be")
    return state


def unpack_sign(body: bytes) -> Sign:
    """
    Raises:
      TrustMessageError: it is none.
    """
    value = _map(body, {"request", "certificate", "proof", "passed_on"})
    request, certificate, proof = value["request"], value["certificate"], value["proof"]
    if (
        not _binary(request, MOST_REQUEST)
        or not _binary(certificate, MOST_CERTIFICATE)
        or not _binary(proof, 512)
        or type(value["passed_on"]) is not bool
    ):
        raise _bad("a field of a request is not what it has to be")
    return Sign(request, certificate, proof, value["passed_on"])


def unpack_report(body: bytes) -> Report:
    """
    Raises:
      TrustMessageError: it is none.
    """
    report = Report(**_map(body, set(Report._fields)))
    if (
        not _whole(report.number)
        or not _binary(report.certificate, MOST_CERTIFICATE)
        or not _binary(report.proof, 512)
        or type(report.passed_on) is not bool
    ):
        raise _bad("a field of a report is not what it has to be")
    return report


def unpack_signed(body: bytes) -> Signed:
    """
    Raises:
      TrustMessageError: it is none.
    """
    value = _map(body, {"certificate", "left_out"})
    certificate, left_out = value["certificate"], value["left_out"]
    if (
        not _binary(certificate, MOST_CERTIFICATE)
        or type(left_out) is not list
        or len(left_out) > 64
        or not all(type(name) is str for name in left_out)
    ):
        raise _bad("a field of an answer is not what it has to be")
    return Signed(certificate, tuple(left_out))


def _map(body: bytes, keys: set[str]) -> dict[str, Any]:
    try:
        value = decode_payload(body)
    except ViolationError as exc:
        raise _bad(str(exc)) from exc
    if type(value) is not dict or value.keys() != keys:
        raise _bad("it is no map with the fields it has to have")
    return value


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _binary(value: Any, most: int) -> bool:
    return type(value) is bytes and 0 < len(value) <= most


def _bad(why: str) -> TrustMessageError:
    return TrustMessageError("a peer sent a bad message about trust", why=why)

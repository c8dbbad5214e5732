"""Which certificates are not valid any more: ``pki/crl.pem``, a revocation list of X.509 (RFC 5280).

It is signed by the authority, so that it does not matter which node one has it from. Its number only
grows: an older list never takes the place of a newer one. ``pki/crl.json`` is what was found in it
when its signature was checked, for boots that import no X.509 (ADR 30); like ``verified.json`` it
protects from nothing that could not be done to the key beside it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from novacron.data_directory import DataDirectory
from novacron.durable import write_atomically, write_durably
from novacron.observe import Gauge
from novacron.record import Record
from novacron.security import documents
from novacron.security.errors import RevocationListError, storage_failure
from novacron.security.filelock import held

if TYPE_CHECKING:
    from cryptography import x509

MOST_ENTRIES: Final = 8192
MOST_BYTES: Final = 480 * 1024
"""Of a list in DER, which has about 40 bytes for each entry: it fits one message between peers."""

_NUMBER = Gauge(
    "novacron_revocation_list_number",
    "Number of the revocation list this node goes by; 0 for none.",
)
_ENTRIES = Gauge("novacron_revoked_certificates", "Certificates on the revocation list.")


class Revoked(Record):
    at: float
    """Seconds since the epoch."""
    reason: str
    """As RFC 5280 names it: ``keyCompromise``, ``superseded``, …; empty where none is given."""


class RevocationList(Record):
    """A list that was checked. The empty one has number 0."""

    number: int
    entries: Mapping[str, Revoked]
    """By serial, hexadecimal."""
    pem: bytes


NONE: Final = RevocationList(0, {}, b"")


def check_list(data: bytes, roots: Sequence[x509.Certificate]) -> RevocationList:
    """The list in the PEM text *data*.

    Raises:
      RevocationListError: it is damaged, none of *roots* has signed it, or it is too large.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import Encoding

    from novacron.security.inspection import faults

    unreadable: tuple[type[Exception], ...] = (InvalidSignature, *faults())
    if len(data) > 2 * MOST_BYTES:
        raise _refused("it is too large")
    try:
        found = x509.load_pem_x509_crl(data)
        der = found.public_bytes(Encoding.DER)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        issuer = found.issuer
    except x509.ExtensionNotFound as exc:
        raise _refused("it has no number") from exc
    except unreadable as exc:
        raise _refused("it is no PEM revocation list") from exc
    if len(der) > MOST_BYTES or len(found) > MOST_ENTRIES:
        raise _refused(f"it has more than {MOST_ENTRIES} entries")
    if not 0 < number < 2**63:
        raise _refused("its number is not positive")
    for root in roots:
        if root.subject != issuer:
            continue
        try:
            if found.is_signature_valid(root.public_key()):  # type: ignore[arg-type]
                break
        except unreadable:
            continue
    else:
        raise _refused("it was not signed by the certificate authority this node trusts")
    try:
        entries = {f"{each.serial_number:x}": _entry(each) for each in found}
    except unreadable as exc:
        raise _refused("an entry is damaged") from exc
    return RevocationList(number, entries, data)


def _entry(found: x509.RevokedCertificate) -> Revoked:
    from cryptography import x509

    try:
        reason = found.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        reason = ""
    return Revoked(found.revocation_date_utc.timestamp(), reason)


def list_builder(
    listed: Mapping[str, Revoked], number: int, authority: x509.Certificate, now: float
) -> x509.CertificateRevocationListBuilder:
    """The list with that *number*, to be signed by *authority*.

    Raises:
      RevocationListError: it would be too long.
    """
    from datetime import UTC, datetime

    from cryptography import x509

    if len(listed) > MOST_ENTRIES:
        raise RevocationListError(
            "cannot revoke more certificates",
            why=f"the list has {MOST_ENTRIES} that have not expired yet",
            remedy="issue for a shorter time, so that fewer have to be listed",
            key="security.certificate_days",
        )
    builder = (
        x509.CertificateRevocationListBuilder()
        .last_update(datetime.fromtimestamp(int(now), UTC))
        # RFC 5280 demands a time by which the next one is there. Here the number decides, which
        # two nodes compare whenever they meet; a list is never too old to be believed.
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    for serial, each in sorted(listed.items()):
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(serial, 16))
            .revocation_date(datetime.fromtimestamp(int(each.at), UTC))
        )
        if each.reason and each.reason != "unspecified":
            entry = entry.add_extension(
                x509.CRLReason(x509.ReasonFlags(each.reason)), critical=False
            )
        builder = builder.add_revoked_certificate(entry.build())
    return builder


class Revocations:
    """What this node goes by. Methods that end in ``_blocking`` belong in a worker thread; the rest
    look at what those have found, at any time and from any thread."""

    def __init__(self, directory: DataDirectory) -> None:
        self.path = directory.pki / "crl.pem"
        self._directory = directory
        self._record_path = directory.pki / "crl.json"
        self._lock_path = directory.pki / "crl.lock"
        self._roots: Callable[[], Sequence[x509.Certificate]] = tuple
        self._authorities: tuple[str, ...] = ()
        self._stamp: documents.Stamp | None = None
        self._mutex = threading.Lock()
        self.current = NONE

    def __repr__(self) -> str:
        return f"Revocations(number {self.current.number}, {len(self.current.entries)} entries)"

    def find(self, serial: str) -> Revoked | None:
        """When and why the certificate with the *serial* (hexadecimal) was revoked."""
        return self.current.entries.get(serial)

    @property
    def changed_on_disk(self) -> bool:
        """Whether somebody replaced the file since it was read. Costs a ``stat``."""
        return documents.stamp(self.path) != self._stamp

    def open_blocking(
        self, authorities: Sequence[str], roots: Callable[[], Sequence[x509.Certificate]]
    ) -> list[str]:
        """Read what is there; returns warnings for the operator.

        Args:
          authorities: Hashes of the keys of the trusted roots.
          roots: Loads them, where a signature has to be checked.

        Raises:
          StorageFailedError: the disk refuses.
        """
        self._authorities, self._roots = tuple(authorities), roots
        self._use(NONE, None)
        try:
            self.refresh_blocking()
        except RevocationListError as exc:
            where = self._directory.quarantine(self.path)
            return [
                f"The list of revoked certificates could not be used ({exc.why}) and lies in "
                f"{where} now. Until a peer has sent the present one, revoked certificates pass."
            ]
        return []

    def rely_on(self, authorities: Sequence[str]) -> None:
        """Other roots are trusted from now on, which the *roots* of :meth:`open_blocking` loads. What
        is in use stays so; the list on disk is checked once more by whoever opens it next, unless
        :meth:`remember_blocking` is called."""
        self._authorities = tuple(authorities)

    def remember_blocking(self) -> None:
        """Keep what was found in the present list, for the next boot.

        Raises:
          RevocationListError: none of the present roots has signed it.
          StorageFailedError: the disk refuses.
        """
        with self._mutex:
            if self.current is not NONE:
                self._record(check_list(self.current.pem, self._roots()))

    def refresh_blocking(self) -> bool:
        """Take over what somebody else wrote; returns whether it is a newer list.

        Raises:
          RevocationListError: it is not to be believed; what was read before stays in use.
          StorageFailedError: it cannot be read.
        """
        with self._mutex:
            stamp = documents.stamp(self.path)
            if stamp == self._stamp:
                return False
            data = self._read()
            if not data:
                # Removed while the node runs: what it knows it goes on knowing.
                self._stamp = stamp
                return False
            found = self._recorded(data)
            if found is None:
                try:
                    found = check_list(data, self._roots())
                finally:
                    self._stamp = stamp
                self._record(found)
            newer = found.number > self.current.number
            self._use(found if newer else self.current, stamp)
            return newer

    def offer_blocking(self, data: bytes) -> bool:
        """Take the list in the PEM text *data* into use, durably, if it is newer than the present
        one; returns whether it was.

        Raises:
          RevocationListError: it is not to be believed.
          StorageFailedError: it cannot be kept; it is not in use.
        """
        found = check_list(data, self._roots())
        with held(self._lock_path):
            self.refresh_blocking()
            with self._mutex:
                if found.number <= self.current.number:
                    return False
                try:
                    write_durably(self.path, found.pem, mode=0o644)
                except OSError as exc:
                    raise storage_failure("write", self.path, exc) from exc
                self._record(found)
                self._use(found, documents.stamp(self.path))
                return True

    def _use(self, found: RevocationList, stamp: documents.Stamp | None) -> None:
        self.current, self._stamp = found, stamp
        _NUMBER.set(found.number)
        _ENTRIES.set(len(found.entries))

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc

    # --- What was found in it -------------------------------------------------------------------

    def _digest(self, data: bytes) -> str:
        return hashlib.sha256(data + ",".join(self._authorities).encode()).hexdigest()

    def _recorded(self, data: bytes) -> RevocationList | None:
        try:
            body: dict[str, Any] = documents.decode(self._record_path.read_bytes())
            if body["digest"] != self._digest(data):
                return None
            entries = {
                str(serial): Revoked(float(at), str(reason))
                for serial, (at, reason) in body["entries"].items()
            }
            return RevocationList(int(body["number"]), entries, data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Lost or damaged: found out once more.
            return None

    def _record(self, found: RevocationList) -> None:
        body = {
            "version": 1,
            "digest": self._digest(found.pem),
            "number": found.number,
            "entries": {serial: [each.at, each.reason] for serial, each in found.entries.items()},
        }
        try:
            write_atomically(self._record_path, documents.encode(body))
        except OSError as exc:
            raise storage_failure("write", self._record_path, exc) from exc


def _refused(why: str) -> RevocationListError:
    return RevocationListError("refusing a list of revoked certificates", why=why)

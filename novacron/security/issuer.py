"""What the node that holds the authority's key does for the others: issue and revoke.

Every method blocks, on disk and on arithmetic, and may be called from several threads and processes
at once: what is decided together is decided under the ledger's lock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.record import Record
from novacron.security import documents
from novacron.security.authority import Authority
from novacron.security.errors import (
    JoinConflictError,
    NotAuthorityError,
    RequestRefusedError,
    RevocationListError,
    TokenLimitError,
    TokenNotFoundError,
)
from novacron.security.inspection import (
    host_names,
    issuer_of,
    key_hash,
    load_certificates,
    node_name,
)
from novacron.security.join_tokens import JoinTokens
from novacron.security.keyring import Keyring
from novacron.security.ledger import Issued, Ledger
from novacron.security.requests import LOOPBACK, Request, check_request
from novacron.security.revocations import (
    RevocationList,
    Revocations,
    Revoked,
    check_list,
    list_builder,
)

if TYPE_CHECKING:
    from cryptography import x509

MOST_A_DAY = 12
"""Certificates for one node in a day. One that renews more often than it must is slowed down here,
before it fills the list."""
MOST_ISSUED = 20_000
"""Entries of the ledger, 1.5 KiB each and rewritten with each new one."""
_ATTEMPTS = 3
_LONGEST_VALIDITY = 825 * 86400.0
"""Seconds; the most that security.certificate_days allows."""
_SERIAL = re.compile(r"[0-9a-f]{24,39}|[1-7][0-9a-f]{39}")
"""Long enough to be meant as one, and of no more than the 159 bits that a list can hold (RFC 5280
allows 20 bytes with a sign)."""
_NONE: Mapping[str, Revoked] = {}
_REASONS = {
    "unspecified": "unspecified",
    "key-compromise": "keyCompromise",
    "superseded": "superseded",
    "cessation-of-operation": "cessationOfOperation",
    "privilege-withdrawn": "privilegeWithdrawn",
}
REASONS = tuple(_REASONS)
"""What a revocation can be put down to (RFC 5280 5.3.1, those that fit a node)."""


class Grant(Record):
    """A certificate that was issued, and what its holder needs beside it."""

    node_id: str
    serial: str
    certificate: str
    """PEM; behind it the handover, where the authority's key was replaced lately."""
    authority: str
    """PEM of every authority that is trusted; behind it the document that lists them, if there is
    one."""
    not_after: float
    """Seconds since the epoch."""
    left_out: tuple[str, ...]
    """Names that were asked for and are another node's."""


def holds_authority(directory: DataDirectory, settings: SecuritySettings) -> bool:
    """Whether the node holds an authority that others join. Costs two ``stat``."""
    return (
        settings.certificate is None
        and (directory.pki / "ca.key").exists()
        and not (directory.pki / "joined.json").exists()
    )


class Issuer:
    """For the node *node_id*. Every method raises NotAuthorityError where it holds no authority."""

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        keyring: Keyring,
        tokens: JoinTokens,
        revocations: Revocations,
        node_id: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._tokens = tokens
        self._revocations = revocations
        self._node_id = node_id
        self._now = now
        self.authority = Authority(directory, keyring, settings.ca_days)
        self.ledger = Ledger(directory, now=now)

    @property
    def present(self) -> bool:
        """See :func:`holds_authority`."""
        return holds_authority(self._directory, self._settings)

    # --- Issue ----------------------------------------------------------------------------------

    def join(self, token: str, request: bytes) -> Grant:
        """A certificate for the key of *request*, for which the join token with the id *token* is
        used up. The same request again, while the token lives, has the same answer.

        Raises:
          RequestRefusedError: of the request, see :func:`~novacron.security.requests.check_request`.
          JoinConflictError: the node's id is another key's.
          JoinTokenError: of the token, see :meth:`JoinTokens.claim_blocking`.
          StorageFailedError: the disk refuses.
        """
        self._check_present()
        asked = check_request(request)
        with self.ledger.changing() as entries:
            for entry in entries:
                if (
                    entry.token == token
                    and (entry.key, entry.node_id) == (asked.key_hash, asked.node_id)
                    and entry.live(self._now())
                ):
                    # Its answer was lost on the way. The token is looked at again all the same.
                    self._tokens.claim_blocking(token, asked.node_id, asked.key_hash)
                    return self._grant(entry, asked)
            self._check_key(asked, entries)
            self._check_id(asked, entries, token)
            self._check_room(asked, entries)
            # Used up before anything is issued: a crash between the two leaves a token that its key,
            # and no other, can use again.
            self._tokens.claim_blocking(token, asked.node_id, asked.key_hash)
            return self._issue(asked, entries, token)

    def renew(self, node_id: str, serial: str, request: bytes) -> Grant:
        """A new certificate for node *node_id*, which has shown that it is that node with the
        certificate of the *serial*. Each renewal is for a new key: for one that has a certificate
        the answer is that one, so that a request which somebody repeats costs nothing.

        Raises:
          RequestRefusedError: of the request, or the certificate it was shown with is revoked.
          StorageFailedError: the disk refuses.
        """
        self._check_present()
        asked = check_request(request)
        if asked.node_id != node_id:
            raise RequestRefusedError(
                "the certificate request is refused",
                why=f"it is for node {asked.node_id}, and node {node_id} asks",
            )
        with self.ledger.changing() as entries:
            now = self._now()
            revoked = {entry.serial for entry in entries if entry.revoked is not None}
            if serial in revoked or self._revocations.find(serial) is not None:
                raise RequestRefusedError(
                    "the certificate request is refused",
                    why="the certificate it was shown with is revoked",
                )
            self._check_key(asked, entries)
            for entry in reversed(entries):
                if entry.key == asked.key_hash and entry.live(now) and self._is_of_today(entry):
                    return self._grant(entry, asked)
            self._check_room(asked, entries)
            return self._issue(asked, entries, None)

    def _issuer_of(self, certificate: x509.Certificate) -> str:
        """Found out from the certificate: the authority may be replaced between two looks at it."""
        issuer = issuer_of(certificate, self.authority.certificates(), (), self._now())
        return key_hash(issuer.public_key()) if issuer is not None else ""

    def _is_of_today(self, entry: Issued) -> bool:
        """Whether the authority that issues now has issued it."""
        document = self.authority.document()
        if document is None:
            return True
        present = key_hash(self.authority.certificate().public_key())
        return (entry.authority or document.cluster) == present

    def _check_present(self) -> None:
        if not self.present:
            raise NotAuthorityError(
                "this node cannot issue certificates",
                why="it does not hold the authority's key",
                remedy="ask the node where `novacron pki init` was run",
            )

    def _check_key(self, asked: Request, entries: Sequence[Issued]) -> None:
        for entry in entries:
            if entry.key != asked.key_hash:
                continue
            if entry.revoked is not None:
                raise RequestRefusedError(
                    "the certificate request is refused",
                    why="a certificate for its key was revoked",
                    remedy="have the node make another key: move its pki/joining.json away and run "
                    "`novacron join` again",
                )
            if entry.node_id != asked.node_id:
                raise JoinConflictError(
                    "the certificate request is refused",
                    why=f"its key is that of node {entry.node_id}",
                    remedy="give each node a data directory of its own; copies share their keys",
                )

    def _check_id(self, asked: Request, entries: Sequence[Issued], token: str) -> None:
        if asked.node_id == self._node_id:
            raise JoinConflictError(
                f"node {asked.node_id} cannot join itself",
                why="the data directory that joins has this node's id: it is a copy of this one's",
                remedy="start from an empty data directory",
                key="system.node_id",
            )
        bound = self._tokens.bound_to(token)
        for entry in entries:
            if (
                entry.node_id == asked.node_id
                and entry.key != asked.key_hash
                and entry.live(self._now())
                and bound != asked.node_id
            ):
                raise JoinConflictError(
                    f"there is a node {asked.node_id} already",
                    why=f"it has the certificate {entry.serial}, valid until "
                    f"{documents.to_text(entry.not_after)}, with another key",
                    remedy="if it is that node, set up anew, make its token with `novacron token "
                    f"create --role node --node-id {asked.node_id}`; if it is a copy, give it a "
                    "data directory of its own",
                    key="system.node_id",
                )

    def _check_room(self, asked: Request, entries: Sequence[Issued]) -> None:
        yesterday = self._now() - 86400.0
        lately = sum(
            entry.node_id == asked.node_id and entry.issued > yesterday for entry in entries
        )
        if lately >= MOST_A_DAY or len(entries) >= MOST_ISSUED:
            raise TokenLimitError(
                "no more certificates are issued",
                why=f"node {asked.node_id} has had {lately} in the last 24 hours"
                if lately >= MOST_A_DAY
                else f"there are {len(entries)} on record",
                remedy="find out why it asks so often"
                if lately >= MOST_A_DAY
                else "wait until some have expired for 30 days",
            )

    def _issue(self, asked: Request, entries: list[Issued], token: str | None) -> Grant:
        from cryptography.hazmat.primitives.serialization import Encoding

        settings, now = self._settings, self._now()
        names, _ = self._names(asked, entries)
        certificate = self.authority.certify(
            asked.key,
            asked.node_id,
            names,
            settings.certificate_days,
            now,
            settings.clock_tolerance,
        )
        entry = Issued(
            f"{certificate.serial_number:x}",
            asked.node_id,
            asked.key_hash,
            tuple(names),
            now,
            certificate.not_valid_after_utc.timestamp(),
            certificate.public_bytes(Encoding.PEM).decode(),
            token,
            authority=self._issuer_of(certificate),
        )
        # On record before anybody has it: what was given out can be revoked.
        self.ledger.write([*entries, entry])
        return self._grant(entry, asked)

    def _names(
        self, asked: Request, entries: Sequence[Issued]
    ) -> tuple[list[str], tuple[str, ...]]:
        """The names to issue for, and those that are another node's: a node that could take a name
        over could stand in for the other's REST interface."""
        now = self._now()
        taken = {
            name
            for entry in entries
            if entry.node_id != asked.node_id and entry.live(now)
            for name in entry.names
        }
        taken |= set(host_names(self.own_certificate()))
        taken -= LOOPBACK
        names = [name for name in asked.names if name not in taken]
        return names, tuple(name for name in asked.names if name in taken)

    def own_certificate(self) -> x509.Certificate:
        """Of this node."""
        path = self._directory.pki / "node.pem"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return self.authority.certificate()
        return load_certificates(data, str(path), "")[0]

    def _grant(self, entry: Issued, asked: Request) -> Grant:
        left_out = tuple(name for name in asked.names if name not in entry.names)
        document = self.authority.document()
        chain = document.chain(self._now()) if document is not None else ""
        return Grant(
            entry.node_id,
            entry.serial,
            entry.certificate + (chain if self._is_of_today(entry) else ""),
            self.authority.path.read_text("ascii"),
            entry.not_after,
            left_out,
        )

    # --- Revoke ---------------------------------------------------------------------------------

    def revoke(self, target: str, reason: str = "unspecified") -> list[str]:
        """Take back every valid certificate of the node *target* (its id, or four or more characters
        of its beginning), or the one with that serial; returns their serials. Those that are revoked
        already are harmless.

        Raises:
          TokenNotFoundError: nothing was issued to such a node, nor with such a serial.
          JoinConflictError: it is this node's own.
          RevocationListError: the list is full.
          StorageFailedError: the disk refuses; repeat it, since some may know already.
        """
        self._check_present()
        target = target.lower().replace(":", "")
        with self.ledger.changing() as entries:
            now = self._now()
            chosen = self._chosen(target, entries)
            marked = [
                entry._replace(revoked=now, reason=_REASONS[reason])
                if entry.serial in chosen and entry.revoked is None
                else entry
                for entry in entries
            ]
            # The mark first: from then on no renewal is granted, and a command that is cut short
            # here is simply repeated.
            self.ledger.write(marked)
            self._publish(chosen, marked, _REASONS[reason])
            return sorted(chosen)

    def take_back(self, found: RevocationList) -> bool:
        """Make a new list where *found*, another one of this authority, or the ledger has certificates
        revoked that the present list has not: one of them is from a backup. Returns whether it did.

        Raises as :meth:`revoke`.
        """
        self._check_present()
        with self.ledger.changing() as entries:
            listed = self._kept(entries)
            lost = self._valid(found.entries, entries)
            if lost.keys() | listed.keys() <= self._revocations.current.entries.keys():
                return False
            marked = [
                entry._replace(revoked=lost[entry.serial].at, reason=lost[entry.serial].reason)
                if entry.serial in lost and entry.revoked is None
                else entry
                for entry in entries
            ]
            self.ledger.write(marked)
            self._publish((), marked, "", lost)
            return True

    def sign_list_anew(self) -> bool:
        """Have the present list signed by the authority that issues, unless it is; returns whether it
        was signed. Raises as :meth:`revoke`."""
        with self.ledger.changing() as entries:
            self._revocations.refresh_blocking()
            current = self._revocations.current
            if current.number == 0:
                return False
            try:
                check_list(current.pem, self.authority.certificates()[:1])
            except RevocationListError:
                self._publish(set(), entries, "")
                return True
            return False

    def _chosen(self, target: str, entries: Sequence[Issued]) -> set[str]:
        own = self.own_certificate()
        # Other tools print whole bytes, where a serial here begins with its first digit.
        serial = target.lstrip("0")
        own_id = node_name(own) or ""
        known = {own_id, *(entry.node_id for entry in entries)}
        nodes = {each for each in known if each == target}
        if not nodes and len(target) >= 4:
            nodes = {each for each in known if each.startswith(target)}
        if serial == f"{own.serial_number:x}" or nodes == {own_id}:
            raise JoinConflictError(
                "refusing to revoke this node's own certificate",
                why="it holds the authority: nobody could tell the others",
                remedy="replace it with `novacron certificate renew`, then revoke the old one by its "
                "serial",
            )
        serials = {entry.serial for entry in entries if entry.serial == serial}
        if serials:
            return serials
        if len(nodes) > 1:
            raise TokenNotFoundError(
                f"{target!r} may be any of several nodes",
                why=", ".join(sorted(nodes)[:8]),
                remedy="give more of its id",
            )
        if nodes:
            now = self._now()
            return {
                entry.serial
                for entry in entries
                if entry.node_id in nodes and (now < entry.not_after)
            }
        if _SERIAL.fullmatch(serial) is not None:
            # Issued, and not on record: one of this node's own, or before a backup was restored.
            return {serial}
        raise TokenNotFoundError(
            f"cannot revoke {target[:64]!r}",
            why="nothing was issued to a node of that id, nor with that serial",
            remedy="list what was issued with `novacron certificate list`",
        )

    def _kept(self, entries: Sequence[Issued]) -> dict[str, Revoked]:
        """What is on the list and has to stay there: a certificate that has expired needs no entry.
        The list itself is where to start from: it may come from a time that this node's ledger, once
        restored from a backup, does not know of."""
        self._revocations.refresh_blocking()
        known = dict(self._revocations.current.entries)
        for entry in entries:
            if entry.revoked is not None:
                known.setdefault(entry.serial, Revoked(entry.revoked, entry.reason))
        return self._valid(known, entries)

    def _valid(self, known: Mapping[str, Revoked], entries: Sequence[Issued]) -> dict[str, Revoked]:
        horizon = self._now() - 86400.0
        ends = {entry.serial: entry.not_after for entry in entries}
        return {
            serial: each
            for serial, each in known.items()
            if ends.get(serial, each.at + _LONGEST_VALIDITY) > horizon
        }

    def _publish(
        self,
        chosen: Collection[str],
        marked: Sequence[Issued],
        reason: str,
        known: Mapping[str, Revoked] = _NONE,
    ) -> None:
        for _ in range(_ATTEMPTS):
            listed = {**known, **self._kept(marked)}
            for serial in chosen:
                listed.setdefault(serial, Revoked(self._now(), reason))
            number = self._revocations.current.number + 1
            builder = list_builder(listed, number, self.authority.certificate(), self._now())
            if self._revocations.offer_blocking(self.authority.sign_list(builder)):
                return
            # A peer has told this node of a newer list meanwhile: this one goes on from that.
        raise RevocationListError(
            "cannot revoke a certificate",
            why="the list is replaced by others all the time",
            remedy="run the same command again",
        )

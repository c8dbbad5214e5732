"""Replacing the authority's key, on the node that holds it, step by step.

Where a rotation stands is what the document in ``pki/ca.pem`` says (:mod:`novacron.security.roots`),
and which keys lie beside it; there is no second journal that could say something else. Each step is
one replacement of that file, with what it needs written before and what it leaves removed after.
Cut short anywhere, the same command goes on; so does a node that boots in between, whose only
question is which certificate comes first.

========  =======================  ==================================  =========================
step      written before           the step                            removed after
========  =======================  ==================================  =========================
begin     ``ca-<hash>.key``        both are trusted, the old issues
issue                              both are trusted, the new issues
finish    own certificate, list    the new alone is trusted            the old key, ``rotation.json``
          of revoked ones
abort                              the old alone is trusted            ``ca-<hash>.key``
========  =======================  ==================================  =========================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.durable import remove_durably, write_durably
from novacron.record import Record
from novacron.security import documents
from novacron.security.errors import RotationError, storage_failure
from novacron.security.filelock import held
from novacron.security.holdings import Holdings
from novacron.security.inspection import key_hash, load_certificates
from novacron.security.roots import BEGUN, ISSUING, MOST_FORMER, SETTLED, Roots

if TYPE_CHECKING:
    from cryptography import x509

    from novacron.security.issuer import Issuer
    from novacron.security.join_tokens import JoinTokens

_DAY = 86400.0
_NEXT = {
    "none": "novacron pki rotate begin",
    "beginning": "novacron pki rotate begin",
    BEGUN: "novacron pki rotate issue",
    ISSUING: "novacron pki rotate finish",
    "finishing": "novacron pki rotate finish",
}


class NodeState(Record):
    """How far a node is that has a valid certificate of this cluster."""

    node_id: str
    roots: int | None
    """Number of the list of authorities it has said to trust; None for none."""
    certificate: str
    """``new`` when it has said something with one, ``issued`` when it was given one and has not,
    ``old``."""
    valid_until: float
    """Of its newest certificate; seconds since the epoch."""
    lacks: str
    """What the next step waits for, in words; empty for nothing."""

    def describe(self) -> dict[str, Any]:
        return {**self._asdict(), "valid_until": documents.to_text(self.valid_until)}


class Progress(Record):
    stage: str
    """``none``, ``beginning``, ``begun``, ``issuing`` or ``finishing``; those in -ing but the second
    last are steps that were cut short."""
    number: int
    cluster: str
    old: str
    """Hash of the authority's key."""
    new: str
    """Empty before there is one."""
    nodes: tuple[NodeState, ...]

    @property
    def next(self) -> str:
        """The command that goes on."""
        return _NEXT[self.stage]

    @property
    def behind(self) -> list[NodeState]:
        return [node for node in self.nodes if node.lacks]

    def describe(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "roots": self.number,
            "cluster": self.cluster,
            "old_authority": self.old,
            "new_authority": self.new or None,
            "next": self.next,
            "ready": not self.behind,
            "nodes": [node.describe() for node in self.nodes],
        }


class Rotation:
    """Every method blocks, and raises NotAuthorityError where the node holds no authority and
    StorageFailedError where the disk refuses."""

    def __init__(
        self,
        directory: DataDirectory,
        settings: SecuritySettings,
        issuer: Issuer,
        tokens: JoinTokens,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._issuer = issuer
        self._authority = issuer.authority
        self._tokens = tokens
        self._now = now
        self.holdings = Holdings(directory)

    # --- Where it stands ------------------------------------------------------------------------

    def progress(self) -> Progress:
        document = self._authority.document()
        roots = [key_hash(root.public_key()) for root in self._authority.certificates()]
        stage, old, new = "none", roots[0], ""
        if document is not None and document.stage != SETTLED:
            stage = document.stage
            new, old = roots if stage == ISSUING else reversed(roots)
        elif (left := self._left()) is not None:
            if left == self._authority.successor_path(roots[0]):
                assert document is not None
                stage, new, old = "finishing", roots[0], document.former[-1]
            else:
                stage = "beginning"
        number = document.number if document is not None else 0
        cluster = document.cluster if document is not None else roots[0]
        return Progress(stage, number, cluster, old, new, self._nodes(stage, number, new))

    def _left(self) -> Path | None:
        return next(iter(sorted(self._authority.successors())), None)

    def _nodes(self, stage: str, number: int, new: str) -> tuple[NodeState, ...]:
        if stage not in (BEGUN, ISSUING):
            return ()
        now, said = self._now(), self.holdings.read()
        newest = {
            entry.node_id: entry
            for entry in sorted(self._issuer.ledger.read(), key=lambda entry: entry.issued)
            if entry.live(now)
        }
        found = []
        for node_id, entry in sorted(newest.items()):
            holding = said.get(node_id)
            roots = holding.number if holding is not None else None
            if holding is not None and holding.issuer == new:
                certificate = "new"
            else:
                certificate = "issued" if entry.authority == new else "old"
            lacks = ""
            if roots is None or roots < number:
                lacks = "it has not said that it trusts the present list of authorities"
            elif stage == ISSUING and certificate == "issued":
                lacks = "it has not said that it uses its new certificate"
            elif stage == ISSUING and certificate == "old":
                lacks = "it uses a certificate of the old authority"
            found.append(NodeState(node_id, roots, certificate, entry.not_after, lacks))
        return tuple(found)

    # --- Steps ----------------------------------------------------------------------------------

    @contextmanager
    def _at(self, *stages: str, step: str) -> Iterator[Progress]:
        """Hold off everybody else who would change ``ca.pem``, at one of *stages*."""
        with held(self._authority.lock_path):
            progress = self.progress()
            if progress.stage not in stages:
                raise RotationError(
                    f"cannot {step}",
                    why=_SAID[progress.stage],
                    remedy=_REMEDIES.get((step, progress.stage), f"run `{progress.next}`"),
                )
            yield progress

    def begin(self) -> Progress:
        """Make the new key and have both authorities trusted. Again is harmless.

        Raises:
          RotationError: another stage has been reached.
        """
        with self._at("none", "beginning", BEGUN, step=BEGIN) as progress:
            if progress.stage == BEGUN:
                return progress
            from cryptography.hazmat.primitives.asymmetric import ec

            authority, now = self._authority, self._now()
            left = self._left()
            if left is not None:
                key = authority.open_key(left)
            else:
                key = ec.generate_private_key(ec.SECP256R1())
                authority.write_key(authority.successor_path(key_hash(key.public_key())), key)
            document = authority.document()
            root = authority.certificate()
            new = authority.self_signed(key, root.subject, now, self._settings.clock_tolerance)
            before = document or Roots(0, SETTLED, now, progress.old, ())
            self.holdings.forget()
            authority.publish(before._replace(stage=BEGUN, made=now, roots=(_pem(root), new)))
        return self.progress()

    def issue(self) -> Progress:
        """Have the new key issue from now on. Again is harmless.

        Raises:
          RotationError: the rotation has not begun, or is over.
        """
        with self._at(BEGUN, ISSUING, step=ISSUE) as progress:
            if progress.stage == BEGUN:
                authority, now = self._authority, self._now()
                document = authority.document()
                assert document is not None
                # Behind every certificate of the new authority until the last one of the old has
                # expired: whoever was away until then has to join anew for that alone.
                ends = now + (self._settings.certificate_days + 1) * _DAY
                handover = authority.handover(
                    authority.key_of(progress.new).public_key(),
                    now,
                    self._settings.clock_tolerance,
                    ends,
                )
                ends = _end(handover)
                authority.publish(
                    document._replace(
                        stage=ISSUING,
                        made=now,
                        roots=tuple(reversed(document.roots)),
                        handover=handover,
                        handover_ends=ends,
                    )
                )
        self._issuer.sign_list_anew()
        return self.progress()

    def finish(self, renew_own: Callable[[], None], *, force: bool = False) -> tuple[Progress, int]:
        """Have the new authority trusted alone, and destroy the old one's key; returns where that has
        led, and how many join tokens of the old authority were revoked. Again is harmless.

        Args:
          renew_own: Has this node's own certificate issued by the new authority, if it is not.
          force: Also where a node is not ready, which has to join anew then.

        Raises:
          RotationError: the new authority does not issue yet, or a node is not ready; names it.
        """
        if self.progress().stage == ISSUING:
            renew_own()
            self._issuer.sign_list_anew()
        voided = 0
        with self._at(ISSUING, "finishing", step=FINISH) as progress:
            if progress.stage == ISSUING:
                if progress.behind and not force:
                    raise _not_ready(progress)
                authority, now = self._authority, self._now()
                document = authority.document()
                assert document is not None
                voided = self._tokens.void_before_blocking(document.made)
                authority.publish(
                    document._replace(
                        stage=SETTLED,
                        made=now,
                        roots=document.roots[:1],
                        former=(*document.former, progress.old)[-MOST_FORMER:],
                    )
                )
            self._destroy_old_key()
        return self.progress(), voided

    def _destroy_old_key(self) -> None:
        """The new key takes the place of the old one, which no name leads to from then on."""
        path = self._left()
        if path is None:
            return
        self.holdings.forget()
        try:
            write_durably(self._authority.key_path, path.read_bytes(), mode=0o600)
            remove_durably(path)
        except OSError as exc:
            raise storage_failure("replace", self._authority.key_path, exc) from exc

    def abort(self) -> Progress:
        """Give the new key up, before it has issued anything. Again is harmless.

        Raises:
          RotationError: it has issued.
        """
        with self._at("none", "beginning", BEGUN, step=ABORT) as progress:
            authority = self._authority
            if progress.stage == BEGUN:
                document = authority.document()
                assert document is not None
                authority.publish(
                    document._replace(stage=SETTLED, made=self._now(), roots=document.roots[:1])
                )
            for path in list(authority.successors()):
                try:
                    remove_durably(path)
                except OSError as exc:
                    raise storage_failure("remove", path, exc) from exc
            self.holdings.forget()
        return self.progress()


BEGIN = "begin to replace the authority's key"
ISSUE = "have the new authority issue"
FINISH = "finish the replacement of the authority's key"
ABORT = "give the new authority up"
_SAID = {
    "none": "no replacement is going on",
    "beginning": "the command that began was cut short",
    BEGUN: "the old authority still issues",
    ISSUING: "the new authority issues already, and nodes live by its certificates",
    "finishing": "the old authority is trusted no more; the command that saw to that was cut short "
    "before the old key was destroyed",
}
_REMEDIES = {
    (ABORT, ISSUING): "finish with `novacron pki rotate finish`, and begin again for another key",
    (
        FINISH,
        "none",
    ): "there is nothing left to do; `novacron pki show` names the present authority",
    (BEGIN, ISSUING): "see `novacron pki rotate status`, then run `novacron pki rotate finish`",
}


def _not_ready(progress: Progress) -> RotationError:
    behind = progress.behind
    named = [f"node {node.node_id}: {node.lacks}" for node in behind[:8]]
    more = [f"and {len(behind) - 8} more"] if len(behind) > 8 else []
    return RotationError(
        f"cannot {FINISH}",
        why="; ".join([*named, *more]),
        remedy="start those nodes and wait for `novacron pki rotate status`; revoke what will not come "
        "back (`novacron certificate revoke NODE`); or add --force, after which they have to join "
        "again",
    )


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _end(pem: str) -> float:
    return load_certificates(pem.encode(), "the handover", "")[0].not_valid_after_utc.timestamp()

"""What a peer's request passes on its way to a handler: whether, and what is recorded."""

from __future__ import annotations

import logging
from typing import Final

import trio

from novacron.errors import NovaCronError, SecurityError
from novacron.network.errors import PeerForbiddenError, TlsError
from novacron.network.session import PeerSession, RequestHandler
from novacron.observe import Counter
from novacron.security import AuditLog, Principal, Role
from novacron.security.policy import RULES, decide

logger = logging.getLogger("novacron.network")

OUTCOME_TIMEOUT: Final = 2.0
"""Seconds to record how a change ended, also when the session has ended meanwhile."""

_STRANGERS: Final = frozenset({"untrusted", "expired", "no_certificate"})
"""Why TLS itself has turned somebody away, for what he showed or did not."""

DENIED = Counter("novacron_peer_requests_denied_total", "Requests of peers that were denied.")


def guarded(method: str, handler: RequestHandler, audit: AuditLog) -> RequestHandler:
    """*handler*, asked only where the rule of *method* allows it to a node; a change is in the audit
    log before it is made, and how it ended after.

    Raises:
      ValueError: there is no such rule: nobody could ask for it.
    """
    rule = RULES.get(method)
    if rule is None:
        raise ValueError(f"no rule says who may do {method}; see novacron/security/policy.py")

    async def record(session: PeerSession, outcome: str) -> None:
        await audit.append(
            action=method,
            actor=f"node:{session.node_id}",
            target=method,
            outcome=outcome,
            source=session.stream.peer_address,
        )

    async def answer(session: PeerSession, body: bytes) -> bytes:
        # Read anew: a rule may be another one than at registration.
        decision = decide(Principal("certificate", session.node_id, Role.NODE), method)
        if not decision.allowed:
            DENIED.inc()
            error = PeerForbiddenError(f"{method} is denied", why=decision.why)
            try:
                await audit.append_denied(
                    method,
                    f"node:{session.node_id}",
                    method,
                    session.stream.peer_address,
                    {"reason": error.code, "why": decision.why},
                )
            except NovaCronError as exc:
                # It is denied either way.
                logger.error("a denied request of a peer is not in the audit log: %s", exc)
            raise error
        if not rule.changes:
            return await handler(session, body)
        await record(session, "started")
        outcome = "failure"
        try:
            answered = await handler(session, body)
            outcome = "success"
            return answered
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + OUTCOME_TIMEOUT):
                try:
                    await record(session, outcome)
                except NovaCronError as exc:
                    logger.error("the outcome of a peer's request is not in the audit log: %s", exc)

    return answer


def is_rejection(error: NovaCronError) -> bool:
    """Whether a handshake failed with *error* because of who called, and not of how."""
    if isinstance(error, TlsError):
        return error.reason in _STRANGERS
    return isinstance(error, SecurityError)


async def record_rejection(audit: AuditLog, address: str, error: NovaCronError) -> None:
    """Put on record that whoever called from *address* was let in no session, and why."""
    try:
        await audit.append_denied(
            "peer.session",
            "anonymous",
            "session",
            address,
            {"reason": error.code, "why": error.why},
        )
    except NovaCronError as exc:
        # It has no session either way.
        logger.error("a rejected peer is not in the audit log: %s", exc)

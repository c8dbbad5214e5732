"""What every call passes on its way to a handler: who, whether, how often, how large, how long.

In this order, because each step costs more than the one before: the caller is identified, counted,
matched to a route and its rule, and only then is a byte of its body read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from novacron import observe
from novacron.api.call import Call, Disconnected, lingering, replay
from novacron.api.policy import ACTIONS
from novacron.api.problems import (
    BodyTooLargeError,
    DeadlineError,
    ForbiddenError,
    MethodError,
    RateLimitedError,
    RouteNotFoundError,
    SlowBodyError,
    UnauthenticatedError,
    incident_of,
    problem_of,
    status_of,
)
from novacron.api.rate import Buckets, address_key
from novacron.errors import DeniedError, NovaCronError
from novacron.http.asgi import Receive, Scope, Send, find_header, respond_problem
from novacron.security import Principal, Role, Security
from novacron.security.policy import RULES, decide

if TYPE_CHECKING:
    from fastapi import FastAPI

    from novacron.api.cluster_tokens import ClusterTokens

log = logging.getLogger("novacron.api")

DENIAL_COST = 10.0
"""Tokens a denied call takes from its address: guessing is answered ten times slower than work."""

OUTCOME_TIMEOUT = 2.0
"""Seconds to record how a change ended, also when its deadline has passed or the node stops."""

_denied = observe.Counter(
    "novacron_api_denied_total", "Calls that were denied, by reason.", ("reason",)
)
_incidents = observe.Counter(
    "novacron_api_incidents_total", "Calls that ended in an unexpected error."
)


class Gate:
    """An ASGI application around the framework's.

    Args:
      app: Its routes are matched here first, so that a call is judged before it is read.
      request_timeout: Seconds a call may take, body and answer included.
      cluster_tokens: None: the node's own are all there are.
    """

    def __init__(
        self,
        app: FastAPI,
        security: Security,
        buckets: Buckets,
        *,
        max_request_bytes: int,
        request_timeout: float,
        cluster_tokens: ClusterTokens | None = None,
    ) -> None:
        self._app = app
        self._cluster_tokens = cluster_tokens
        self._security = security
        self._buckets = buckets
        self._max_request_bytes = max_request_bytes
        self._request_timeout = request_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, send)
        try:
            with trio.move_on_after(self._request_timeout) as deadline:
                await self._pass(call, receive)
            if deadline.cancelled_caught:
                raise self._late(call)
        except Disconnected:
            return
        except NovaCronError as exc:
            await self._refuse(call, exc, receive)
        except Exception as exc:
            await self._incident(call, exc)

    async def _pass(self, call: Call, receive: Receive) -> None:
        try:
            call.principal = await self._authenticate(call)
        except UnauthenticatedError as exc:
            # Before the caller is told to slow down: what it tried it has tried, and the log has a
            # budget of its own for callers that go on.
            await self._record_denial(call, "api.call", exc.code, exc.why)
            self._count(call)
            _denied.inc("unauthenticated")
            raise
        except RateLimitedError as exc:
            # Its address has had too many tokens looked up that nobody knows.
            await self._record_denial(call, "api.call", exc.code, exc.why)
            _denied.inc("rate")
            raise
        self._count(call)
        template, action = self._route(call)
        decision = decide(call.principal, action)
        if not decision.allowed:
            _denied.inc("forbidden")
            error = ForbiddenError(
                f"{call.method} {template} is not allowed",
                why=decision.why,
                remedy=decision.remedy,
            )
            await self._record_denial(call, action, error.code, decision.why)
            raise error
        body = await self._read_body(call, receive)
        call.scope["state"]["principal"] = call.principal
        if RULES[action].changes:
            await self._change(call, action, replay(body, receive))
        else:
            await self._app(call.scope, replay(body, receive), call.send)
            if call.status == 403:
                # The handler asked again, once it knew what the call is about.
                _denied.inc("resource")
                await self._record_denial(call, action, ForbiddenError.code, "")

    # --- Who ------------------------------------------------------------------------------------

    async def _authenticate(self, call: Call) -> Principal:
        header = find_header(call.scope["headers"], b"authorization")
        if header is not None:
            scheme, _, secret = header.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer":
                raise UnauthenticatedError(
                    "the call cannot be authenticated",
                    why="the Authorization header is not of the scheme Bearer",
                    remedy="send Authorization: Bearer TOKEN",
                )
            if secret.startswith("ncj_"):
                return self._authenticate_joining(secret.strip())
            principal = self._security.tokens.authenticate(secret.strip())
            if principal is None and self._cluster_tokens is not None:
                principal = await self._cluster_tokens.authenticate(secret.strip(), call.source)
            if principal is None:
                raise UnauthenticatedError(
                    "the call cannot be authenticated",
                    why="the token is unknown, has expired or was revoked",
                    remedy="make one with `novacron token create`",
                )
            return principal
        certificate: bytes | None = call.scope["state"].get("client_certificate")
        if certificate is not None:
            try:
                # In a thread: the first one imports the X.509 library.
                peer = await trio.to_thread.run_sync(
                    self._security.certificates.identify, certificate
                )
            except DeniedError as exc:
                raise UnauthenticatedError(
                    "the call cannot be authenticated", why=f"its certificate: {exc.why}"
                ) from exc
            return Principal("certificate", peer.node_id, Role.NODE)
        raise UnauthenticatedError(
            "the call cannot be authenticated",
            why="it has neither a token nor a client certificate",
            remedy="send Authorization: Bearer TOKEN; `novacron token create` makes one",
        )

    def _authenticate_joining(self, secret: str) -> Principal:
        try:
            return self._security.join_tokens.authenticate(secret)
        except DeniedError as exc:
            raise UnauthenticatedError(exc.what, why=exc.why, remedy=exc.remedy) from exc

    def _count(self, call: Call) -> None:
        """Take from the caller's bucket.

        Raises:
          RateLimitedError: it is empty.
        """
        now = trio.current_time()
        if call.principal is None:
            key, cost = address_key(call.source), DENIAL_COST
        else:
            key, cost = f"{call.principal.kind} {call.principal.name}", 1.0
        wait = self._buckets.take(key, now, cost)
        if wait > 0:
            _denied.inc("rate")
            raise RateLimitedError(
                "too many calls",
                why=f"the limit is {self._buckets.rate:g} a second and {self._buckets.burst} at once",
                remedy="wait as long as Retry-After says",
                key="api.rate_limit",
                retry_after=wait,
            )

    # --- Whether --------------------------------------------------------------------------------

    def _route(self, call: Call) -> tuple[str, str]:
        from starlette.routing import Match, Route

        allowed: set[str] = set()
        for route in self._app.routes:
            if not isinstance(route, Route):
                continue
            match, _ = route.matches(call.scope)
            if match is Match.FULL:
                return route.path, ACTIONS[call.method, route.path]
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
        if allowed:
            if "GET" in allowed:
                allowed.add("HEAD")
            raise MethodError(
                f"{call.scope['path']} does not take {call.scope['method'][:16]}",
                allowed=", ".join(sorted(allowed)),
            )
        raise RouteNotFoundError(
            f"there is nothing at {call.scope['path'][:200]}",
            remedy="/api/v1/openapi.json lists what there is",
        )

    # --- What is recorded -----------------------------------------------------------------------

    async def _change(self, call: Call, action: str, receive: Receive) -> None:
        # Before, so that no change is without a record; with audit_on_failure: stop this raises
        # and the change is not made.
        await self._audit(call, action, "started")
        outcome = "failure"
        try:
            await self._app(call.scope, receive, call.send)
            if call.status is not None and call.status < 400:
                outcome = "success"
            elif call.status == 403:
                _denied.inc("resource")
                outcome = "denied"
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + OUTCOME_TIMEOUT):
                try:
                    await self._audit(call, action, outcome)
                except NovaCronError as exc:
                    # The change is made and its beginning recorded: refusing it now would be a lie.
                    log.error("the outcome of a call is not in the audit log: %s", exc)

    async def _record_denial(self, call: Call, action: str, reason: str, why: str) -> None:
        try:
            await self._security.audit.append_denied(
                action,
                _actor(call),
                _target(call),
                call.source,
                {"request": call.id, "method": call.method[:16], "reason": reason, "why": why},
            )
        except NovaCronError as exc:
            # It is denied either way.
            log.error("a denied call is not in the audit log: %s", exc)

    async def _audit(self, call: Call, action: str, outcome: str) -> None:
        await self._security.audit.append(
            action=action,
            actor=_actor(call),
            target=_target(call),
            outcome=outcome,
            source=call.source,
            details={"request": call.id, "method": call.method[:16], "status": call.status},
        )

    # --- How large ------------------------------------------------------------------------------

    async def _read_body(self, call: Call, receive: Receive) -> bytes:
        """The whole body, refused while it is read once it is above the limit.

        Read here and not by the framework, which would turn any error in between into its own.
        """
        limit = self._max_request_bytes
        length = find_header(call.scope["headers"], b"content-length")
        # h11 has checked that it is a number.
        if length is not None and int(length) > limit:
            raise self._too_large()
        received = bytearray()
        call.reading = True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            received += message.get("body", b"")
            if len(received) > limit:
                raise self._too_large()
            if not message.get("more_body", False):
                call.reading = False
                return bytes(received)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            "the request is too large",
            why=f"a body may have {self._max_request_bytes} bytes",
            key="api.max_request_bytes",
        )

    # --- When it fails --------------------------------------------------------------------------

    def _late(self, call: Call) -> NovaCronError:
        why = f"a call may take {self._request_timeout:g} s"
        if call.reading:
            return SlowBodyError("the request's body did not arrive in time", why=why)
        return DeadlineError("the call took too long", why=why, key="api.request_timeout")

    async def _refuse(self, call: Call, error: NovaCronError, receive: Receive) -> None:
        if status_of(error) == 500:
            await self._incident(call, error)
            return
        if call.status is not None:
            return
        problem = problem_of(error)
        send: Send = call.send
        if isinstance(error, BodyTooLargeError):
            send = lingering(call.send, receive)
        await respond_problem(
            send,
            problem.status,
            problem.title,
            problem.detail,
            headers=problem.headers,
            instance=call.id,
            **problem.members,
        )

    async def _incident(self, call: Call, error: Exception) -> None:
        _incidents.inc()
        log.error(
            "incident %s: %s %s failed unexpectedly",
            call.id,
            call.method,
            call.scope["path"],
            exc_info=error,
            extra={"request": call.id},
        )
        if call.status is None:
            problem = incident_of(call.id)
            await respond_problem(
                call.send,
                problem.status,
                problem.title,
                problem.detail,
                instance=call.id,
                **problem.members,
            )


def _actor(call: Call) -> str:
    principal = call.principal
    return f"{principal.kind}:{principal.name}" if principal else "anonymous"


def _target(call: Call) -> str:
    return str(call.scope["state"].get("target") or call.scope["path"][:200])

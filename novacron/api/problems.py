"""Errors to HTTP answers: the one table, and the problem documents (RFC 9457) made from it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from novacron.errors import (
    ApiError,
    ConflictError,
    DeniedError,
    InvalidError,
    LimitError,
    LocalProtocolError,
    NotFoundError,
    NovaCronError,
    RemoteProtocolError,
    TransientError,
    UnavailableError,
)
from novacron.record import Record


class UnauthenticatedError(ApiError, DeniedError):
    """The call says not, or not truly, who makes it."""

    code = "api.unauthenticated"


class ForbiddenError(ApiError, DeniedError):
    """The caller's role is not enough."""

    code = "api.forbidden"


class RateLimitedError(ApiError, LimitError):
    """The caller sends more than ``api.rate_limit`` allows."""

    code = "api.rate_limited"

    def __init__(self, what: str, *, retry_after: float, **fields: str) -> None:
        super().__init__(what, **fields)
        self.retry_after = retry_after
        """Seconds until the same call would pass."""


class BodyTooLargeError(ApiError, LimitError):
    """The request's body is above ``api.max_request_bytes``."""

    code = "api.body_too_large"


class DeadlineError(ApiError, TransientError):
    """The request took longer than ``api.request_timeout``."""

    code = "api.deadline"


class SlowBodyError(ApiError, TransientError):
    """The request's body did not arrive within ``api.request_timeout``."""

    code = "api.slow_body"


class InvalidRequestError(ApiError, InvalidError):
    """Parameters or a body that the route does not take."""

    code = "api.invalid"

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        """*errors*: where, and what is wrong there; never the value, which may be a secret."""
        super().__init__(
            "the request is not valid",
            why="; ".join(f"{where}: {message}" for where, message in errors[:LISTED]),
            remedy="see /api/v1/openapi.json for what is accepted",
        )
        self.errors = errors[:LISTED]


LISTED = 20
"""Faults of one body that are listed: more are noise, and a body can hold thousands."""


class RouteNotFoundError(ApiError, NotFoundError):
    """Nothing is served at the path."""

    code = "api.no_route"


class MethodError(ApiError, InvalidError):
    """The path is served, but not with this method."""

    code = "api.method"

    def __init__(self, what: str, *, allowed: str, **fields: str) -> None:
        super().__init__(what, **fields)
        self.allowed = allowed


STATUS: tuple[tuple[type[NovaCronError], int], ...] = (
    (UnauthenticatedError, 401),
    (BodyTooLargeError, 413),
    (MethodError, 405),
    (SlowBodyError, 408),
    (DeniedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    # After those three: where an error is invalid input as well, they say more.
    (InvalidError, 422),
    (LimitError, 429),
    (TransientError, 503),
    (UnavailableError, 503),
    (RemoteProtocolError, 502),
    (LocalProtocolError, 500),
)
"""The first class that fits decides. The first four are what HTTP has finer words for than the
axis "what the caller can do", whose classes follow; an error on none of them is ours: 500."""

RETRY_AFTER = 1
"""Seconds a client is told to wait after 503: transient failures here are restarts and locks."""


class Problem(Record):
    status: int
    title: str
    detail: str
    members: dict[str, Any]
    headers: list[tuple[bytes, bytes]]


def status_of(error: NovaCronError) -> int:
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def problem_of(error: NovaCronError) -> Problem:
    """The answer to a call that failed with *error*; not for one that maps to 500."""
    status = status_of(error)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, UnauthenticatedError):
        headers.append((b"www-authenticate", b'Bearer realm="novacron"'))
    elif isinstance(error, RateLimitedError):
        # Rounded up: a client that comes back early is refused again.
        headers.append((b"retry-after", b"%d" % max(1, -int(-error.retry_after // 1))))
    elif isinstance(error, MethodError):
        headers.append((b"allow", error.allowed.encode()))
    elif status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER))
    members: dict[str, Any] = {
        "code": error.code,
        "remedy": error.remedy or None,
        "key": error.key or None,
    }
    if isinstance(error, InvalidRequestError):
        members["errors"] = [
            {"where": where, "message": message} for where, message in error.errors
        ]
    return Problem(
        status,
        HTTPStatus(status).phrase,
        f"{error.what}: {error.why}" if error.why else error.what,
        members,
        headers,
    )


def incident_of(request_id: str) -> Problem:
    """The answer to a call that ran into a fault of ours: nothing of it but where to look."""
    return Problem(
        500,
        "Internal Server Error",
        f"an unexpected error; the node's log has it as incident {request_id}",
        {"code": "api.incident", "incident": request_id},
        [],
    )

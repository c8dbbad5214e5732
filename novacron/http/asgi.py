"""The ASGI types this project speaks, and answers made without a framework."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    # Answers are data. A browser that is tricked into opening one must not sniff a type, run
    # anything it holds, frame it, or tell another site where it came from.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""On every answer; after the OWASP REST Security Cheat Sheet."""


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of header *name* (lower case), or None."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    headers: Headers = (),
) -> None:
    """Send one complete answer with the security headers."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                *SECURITY_HEADERS,
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def respond_json(
    send: Send, status: int, document: Mapping[str, Any], headers: Headers = ()
) -> None:
    await respond(send, status, json.dumps(document).encode(), b"application/json", headers)


async def respond_problem(
    send: Send,
    status: int,
    title: str,
    detail: str,
    *,
    code: str,
    instance: str | None = None,
    headers: Headers = (),
    **members: Any,
) -> None:
    """Send a problem document (RFC 9457). *members* are its extension members; None is left out.

    *instance* is the call's id where it has one already; else it gets one here, and the header
    ``X-Request-Id`` with it.
    """
    if instance is None:
        instance = secrets.token_hex(8)
        headers = [*headers, (b"x-request-id", instance.encode())]
    document = problem_document(status, title, detail, instance=instance, code=code, **members)
    await respond(send, status, json.dumps(document).encode(), b"application/problem+json", headers)


def problem_document(status: int, title: str, detail: str, **members: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    document.update((key, value) for key, value in members.items() if value is not None)
    return document

"""The decision a handler asks for, once it knows what a call is about: the gate has decided by role."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from novacron.api.problems import ForbiddenError
from novacron.security.policy import decide

if TYPE_CHECKING:
    from fastapi import Request

    from novacron.security import Principal


def allow(request: Request, action: str, resources: Collection[str], doing: str) -> None:
    """Return if the caller of *request* may do *action* to all of *resources*.

    *doing* names the call, for whoever reads the error. The gate records the denial.

    Raises:
      ForbiddenError: it may not; says which rule decided.
    """
    decision = decide(caller(request), action, resources)
    if not decision.allowed:
        raise ForbiddenError(f"{doing} is not allowed", why=decision.why, remedy=decision.remedy)


def caller(request: Request) -> Principal:
    """Whom the gate has let in."""
    principal: Principal = request.state.principal
    return principal

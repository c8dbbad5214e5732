"""One route of the interface, and the error of one whose component is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from novacron.api.parameters import Parameter
from novacron.errors import ApiError, UnavailableError
from novacron.record import Record

Handler = Callable[..., Awaitable[Any]]


class NotHereError(ApiError, UnavailableError):
    """This node has no such component."""

    code = "api.not_here"


class Entry(Record):
    """One route. *path* is under the prefix; *status* is that of success."""

    method: str
    path: str
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    """Name of the body's schema in :data:`novacron.api.parameters.SCHEMAS`."""
    status: int = 200
    answer: str = ""
    """Name of the schema in :data:`novacron.api.answers.SCHEMAS` of what it answers, where there is
    more to say of that than the description does."""

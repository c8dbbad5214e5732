from __future__ import annotations

import inspect

import pytest

from novacron import errors
from novacron.api import problems
from novacron.api.problems import (
    MethodError,
    RateLimitedError,
    UnauthenticatedError,
    problem_of,
    status_of,
)
from novacron.errors import ApiError, DatabaseError, NovaCronError

AXIS = {
    errors.TransientError: 503,
    errors.UnavailableError: 503,
    errors.InvalidError: 422,
    errors.DeniedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.LimitError: 429,
    errors.LocalProtocolError: 500,
    errors.RemoteProtocolError: 502,
}


@pytest.mark.parametrize(("what", "status"), AXIS.items(), ids=lambda v: getattr(v, "__name__", v))
def test_what_a_caller_can_do_decides_the_status_wherever_it_happened(
    what: type[NovaCronError], status: int
) -> None:
    for where in (DatabaseError, ApiError):
        error = type("Mixed", (where, what), {})("it failed")
        assert status_of(error) == status


def test_every_class_of_the_axis_is_in_the_table() -> None:
    section = inspect.getsource(errors).partition("# --- Where")[0]
    names = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and f"class {name}(" in section and name != "NovaCronError"
    }
    mapped = {kind.__name__ for kind, _ in problems.STATUS}
    assert names <= mapped
    assert names == {kind.__name__ for kind in AXIS}


def test_an_error_that_is_on_no_axis_is_ours() -> None:
    assert status_of(DatabaseError("odd")) == 500


def test_a_problem_says_what_why_and_what_to_do() -> None:
    class Taken(DatabaseError, errors.ConflictError):
        code = "database.taken"

    problem = problem_of(Taken("cannot take it", why="it is taken", remedy="ask", key="a.b"))
    assert (problem.status, problem.title) == (409, "Conflict")
    assert problem.detail == "cannot take it: it is taken"
    assert problem.members == {"code": "database.taken", "remedy": "ask", "key": "a.b"}


def test_refusals_carry_the_headers_http_wants_with_them() -> None:
    assert dict(problem_of(UnauthenticatedError("no")).headers)[b"www-authenticate"]
    limited = problem_of(RateLimitedError("slow", retry_after=1.2))
    assert dict(limited.headers)[b"retry-after"] == b"2"
    assert dict(problem_of(MethodError("no", allowed="GET")).headers)[b"allow"] == b"GET"
    busy = type("Busy", (ApiError, errors.TransientError), {})("busy")
    assert dict(problem_of(busy).headers)[b"retry-after"] == b"1"

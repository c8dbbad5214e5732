"""Building the FastAPI application. Imports FastAPI: imported off the loop, see ``component.py``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from novacron import __version__
from novacron.api import answers
from novacron.api.entry import Entry
from novacron.api.parameters import SCHEMAS
from novacron.api.policy import PREFIX, check_policy, rule_of
from novacron.api.problems import Problem, incident_of, problem_of, status_of
from novacron.api.routes import Routes
from novacron.api.services import Services
from novacron.errors import NovaCronError
from novacron.http.asgi import problem_document

MEDIA_TYPE = "application/problem+json"

_NO_TELEMETRY = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI of 0.160 and later instruments itself, and would export to wherever an environment
variable says. Older ones ignore the argument."""

DESCRIPTION = """\
The interface of one NovaCron node. Every call but the three probes needs a token
(`Authorization: Bearer …`, made with `novacron token create`) or a node's client certificate.
Errors are problem documents (RFC 9457)."""


def build(services: Services) -> FastAPI:
    """The application, held against the table of roles.

    Raises:
      PolicyError: a route declares no role.
    """
    app = FastAPI(
        title="NovaCron",
        version=__version__,
        description=DESCRIPTION,
        # The documentation pages load scripts from a content delivery network, which a management
        # interface must not; and all built-in routes would be without a role.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,  # type: ignore[arg-type]
        exception_handlers={
            NovaCronError: _novacron_error,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    for entry in Routes(services).table():
        app.add_api_route(
            PREFIX + entry.path,
            entry.handler,
            methods=[entry.method],
            status_code=entry.status,
            # Answers are made of plain values: a model each would cost the boot 2 ms and every
            # call a second serialisation, and tell a client nothing the reference does not.
            response_model=None,
            response_class=JSONResponse,
            openapi_extra=_described(entry),
        )

    async def openapi() -> dict[str, Any]:
        """This interface as an OpenAPI 3.1 document."""
        return document(app)

    app.add_api_route(
        PREFIX + "/openapi.json",
        openapi,
        methods=["GET"],
        response_model=None,
        response_class=JSONResponse,
    )
    check_policy(routes(app))
    return app


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route, whoever added it."""
    found: list[tuple[str, str]] = []
    for route in app.routes:
        if isinstance(route, Route):
            found += [(method, route.path) for method in sorted(route.methods or ())]
        else:
            # A mount or a websocket: nothing the gate could hold to a rule.
            found.append(("*", getattr(route, "path", repr(route))))
    return found


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what FastAPI cannot know: how a call is authenticated, which role
    it needs, and that errors are problem documents."""
    made: dict[str, Any] = app.openapi()
    if "x-novacron" in made:
        return made
    made["x-novacron"] = {"roles": ["viewer", "operator", "admin", "node"]}
    components = made.setdefault("components", {})
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "certificate": {"type": "mutualTLS"},
    }
    components.setdefault("schemas", {})["Problem"] = {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string", "description": "The call, as in X-Request-Id."},
            "code": {"type": "string", "description": "Stable; what programs decide on."},
            "remedy": {"type": "string"},
            "key": {"type": "string", "description": "The configuration key concerned."},
        },
    }
    problem = {
        "description": "Any error",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            rule = rule_of(method.upper(), path)
            operation["x-role"] = rule.role.value if rule.role is not None else ""
            operation["security"] = [{"token": []}] + ([{"certificate": []}] if rule.node else [])
            operation["responses"]["default"] = problem
    for name, schema in {**SCHEMAS, **answers.SCHEMAS}.items():
        components["schemas"][name] = schema()
    return made


def _described(entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {"parameters": [one.described() for one in entry.parameters]}
    if entry.body:
        schema = {"$ref": f"#/components/schemas/{entry.body}"}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    if entry.answer:
        schema = {"$ref": f"#/components/schemas/{entry.answer}"}
        described["responses"] = {
            str(entry.status): {"content": {"application/json": {"schema": schema}}}
        }
    return described


def _answer(request: Request, problem: Problem) -> Response:
    members = {"instance": request.state.request_id} | problem.members
    return JSONResponse(
        problem_document(problem.status, problem.title, problem.detail, **members),
        problem.status,
        {name.decode(): value.decode() for name, value in problem.headers},
        MEDIA_TYPE,
    )


async def _novacron_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, NovaCronError)
    if status_of(exc) == 500:
        # A fault of ours, whatever it is called: the gate logs it, the caller gets an incident.
        raise exc
    return _answer(request, problem_of(exc))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    phrase = HTTPStatus(exc.status_code).phrase
    headers = [(name.encode(), value.encode()) for name, value in (exc.headers or {}).items()]
    return _answer(
        request,
        Problem(exc.status_code, phrase, str(exc.detail), {"code": "api.http"}, headers),
    )


async def _unexpected(request: Request, exc: Exception) -> Response:
    # Starlette raises it again after this answer; the gate logs it.
    return _answer(request, incident_of(request.state.request_id))

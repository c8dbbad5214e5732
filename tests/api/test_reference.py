from __future__ import annotations

import runpy
from pathlib import Path
from typing import cast

from novacron.api.application import build, document
from novacron.api.parameters import SCHEMAS
from novacron.api.policy import ACTIONS, rule_of
from novacron.api.routes import Routes
from novacron.api.services import Services


def test_the_reference_of_the_interface_is_what_the_routes_say(repository: Path) -> None:
    generator = runpy.run_path(str(repository / "docs/generate/rest.py"))
    page = (repository / "docs/reference/rest.md").read_text()
    assert page == generator["rendered"](), "run make docs"


def test_every_route_is_described_with_its_role_its_parameters_and_its_errors() -> None:
    made = document(build(cast(Services, None)))
    described = {
        (method.upper(), path)
        for path, operations in made["paths"].items()
        for method in operations
    }
    assert described == set(ACTIONS)
    for path, operations in made["paths"].items():
        in_path = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for method, operation in operations.items():
            rule = rule_of(method.upper(), path)
            assert operation["description"]
            assert operation["x-role"] == (rule.role.value if rule.role else "")
            assert [list(one) for one in operation["security"]] == (
                [["token"], ["certificate"]] if rule.node else [["token"]]
            )
            named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert named == in_path
            assert "default" in operation["responses"]


def test_the_document_refers_to_schemas_it_has() -> None:
    made = document(build(cast(Services, None)))
    for entry in Routes(cast(Services, None)).table():
        if entry.body:
            assert entry.body in SCHEMAS
            assert entry.body in made["components"]["schemas"]
    assert document(build(cast(Services, None))) == made


def test_the_built_in_pages_that_load_scripts_from_elsewhere_are_not_served() -> None:
    app = build(cast(Services, None))
    assert app.docs_url is None
    assert app.redoc_url is None
    assert app.openapi_url is None

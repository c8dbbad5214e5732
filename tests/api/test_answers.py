"""What the OpenAPI document says of answers is what answers hold."""

from __future__ import annotations

from typing import Any, cast

from novacron.api.application import build, document
from novacron.api.services import Services
from novacron.dwcp.hde.report import Coded, CodingReport, Decision, StageSeconds
from tests.api.dwcp_stand_in import transfer_view

REPORT = CodingReport(
    zero=Coded(1, 1024, 0),
    zstd=Coded(2, 2048, 512),
    cpu_seconds=StageSeconds(0.5, 0.25),
    decisions=(Decision(1.0, "raw", "zstd 1", "the link is what bounds", 10, 20, 4.0),),
)


def schemas() -> dict[str, Any]:
    found: dict[str, Any] = document(build(cast(Services, None)))["components"]["schemas"]
    return found


def test_every_member_of_a_report_is_described_and_no_other() -> None:
    found = schemas()
    report = REPORT.as_json()
    described = found["CodingReport"]["properties"]
    assert described.keys() == report.keys()
    assert described["cpu_seconds"]["properties"].keys() == report["cpu_seconds"].keys()
    assert found["Coded"]["properties"].keys() == report["zstd"].keys()
    assert found["CodingDecision"]["properties"].keys() == report["decisions"][0].keys()


def test_what_is_said_of_a_transfer_is_in_one() -> None:
    view = transfer_view("ab540000" * 4, coding=REPORT)
    assert schemas()["Transfer"]["properties"].keys() <= view.keys()
    assert view["coding"] == REPORT.as_json()


def test_a_transfer_is_what_the_calls_about_one_answer() -> None:
    paths = document(build(cast(Services, None)))["paths"]
    for path, method, status in (
        ("/api/v1/transfers/{id}", "get", "200"),
        ("/api/v1/transfers", "post", "201"),
        ("/api/v1/transfers/{id}/pause", "post", "200"),
    ):
        content = paths[path][method]["responses"][status]["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Transfer"}

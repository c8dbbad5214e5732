"""``novacron certificate``."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from tests.cli.booted import Booted
from tests.security.issuing import DAY, OutsideAuthority, key_pem, pem, write_private
from tests.security.stand_ins import NODE_ID, OTHER_ID


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    return Booted(tmp_path / "node", capsys)


def test_show_names_the_node_and_its_dates(node: Booted) -> None:
    found = node.json("certificate", "show")
    assert found["node_id"] == NODE_ID
    assert found["problems"] == []
    assert 89 < found["days_left"] <= 90
    assert "localhost" in found["names"]
    assert NODE_ID in node.run("certificate", "show")


def test_pem_holds_no_key(node: Booted) -> None:
    shown = node.run("certificate", "show", "--pem")
    assert ssl.PEM_cert_to_DER_cert(shown)
    assert "PRIVATE" not in shown


def test_renew_issues_another_one_and_records_it(node: Booted) -> None:
    before = node.json("certificate", "show")["serial"]
    renewed = node.json("certificate", "renew")["serial"]
    assert renewed == node.json("certificate", "show")["serial"] != before
    assert node.actions()[-1] == "certificate.renew"
    material, _ = node.security.certificates.examine()
    assert material is not None
    assert material.serial == renewed


def test_show_lists_everything_that_is_wrong_and_exits_1(node: Booted, tmp_path: Path) -> None:
    authority = OutsideAuthority("one")
    certificate, key = authority.issue(
        [f"urn:novacron:node:{OTHER_ID}"], begins=-9 * DAY, ends=-2 * DAY
    )
    other = OutsideAuthority("another")
    settings = {
        "certificate": write_private(tmp_path / "c.pem", pem(certificate)),
        "ca_certificate": write_private(tmp_path / "ca.pem", pem(other.certificate)),
        "private_key": f"file:{write_private(tmp_path / 'k.pem', key_pem(key))}",
    }
    options = [f"--set=security.{name}={value}" for name, value in settings.items()]
    found = node.json("certificate", "show", *options, fails=1)
    text = " ".join(found["problems"])
    assert "it expired at" in text
    assert OTHER_ID in text
    assert "not signed by" in text
    assert "issued outside" in node.run("certificate", "renew", *options, fails=1)


def test_show_and_renew_work_when_the_clock_was_wrong(
    node: Booted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 100 * 86400)
    found = node.json("certificate", "show", fails=1)
    assert "it is not valid before" in found["problems"][0]
    node.run("certificate", "renew")
    assert node.json("certificate", "show")["problems"] == []


def test_a_missing_certificate_and_a_missing_identity_are_said(node: Booted) -> None:
    node.directory.identity.unlink()
    assert "cannot read the node's identity" in node.run("certificate", "renew", fails=1)
    (node.directory.pki / "node.pem").unlink()
    assert "cannot read the certificate" in node.run("certificate", "show", fails=1)

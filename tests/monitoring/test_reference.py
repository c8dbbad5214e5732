from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def generator(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "docs/generate/metrics.py"))


def test_the_reference_of_the_metrics_is_what_the_code_defines(
    generator: dict[str, Any], repository: Path
) -> None:
    page = (repository / "docs/reference/metrics.md").read_text()
    assert page == generator["rendered"](), "run make docs"


def test_every_metric_follows_the_naming_conventions(generator: dict[str, Any]) -> None:
    for name, (kind, meaning, labels) in generator["metrics"]().items():
        assert re.fullmatch(r"novacron_[a-z0-9_]+", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not name.endswith(("_ms", "_milliseconds", "_kb", "_mb", "_mib")), name
        assert meaning, name
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in labels), name


def test_no_counter_shares_its_name_with_another_metric(generator: dict[str, Any]) -> None:
    # In OpenMetrics a counter is called without _total: a gauge of that name makes a scrape fail.
    names = set(generator["metrics"]())
    for name in names:
        for suffix in ("_total", "_created", "_bucket", "_count", "_sum"):
            assert name + suffix not in names, name


def rules(repository: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load((repository / "configs/alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_each_alert_rule_is_on_metrics_that_exist(
    generator: dict[str, Any], repository: Path
) -> None:
    known = set(generator["PROCESS_METRICS"]) | {"up"}
    for name, (kind, _, _) in generator["metrics"]().items():
        known.add(name)
        if kind == "histogram":
            known |= {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    for rule in rules(repository):
        # What is left of an expression without label matchers, strings, ranges, functions, numbers.
        bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)|\b[a-z_]+(?=\s*\()", " ", rule["expr"])
        named = set(re.findall(r"\b[a-z][a-z0-9_]*\b", bare)) - {"by", "sum", "unless"}
        assert named, rule["alert"]
        assert named <= known, rule["alert"]


def test_labels_that_alert_rules_match_on_exist(
    generator: dict[str, Any], repository: Path
) -> None:
    known = generator["metrics"]()
    for rule in rules(repository):
        for name, matchers in re.findall(r"([a-z][a-z0-9_]*)\{([^}]*)\}", rule["expr"]):
            used = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|=)", matchers)) - {"job", "instance"}
            if used:
                assert used <= set(known[name][2]), rule["alert"]


def test_each_alert_rule_says_how_bad_it_is_and_what_to_do(repository: Path) -> None:
    names = [rule["alert"] for rule in rules(repository)]
    assert len(names) == len(set(names))
    for rule in rules(repository):
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]

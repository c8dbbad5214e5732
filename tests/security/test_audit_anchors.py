"""A log held against where it stood: what a chain alone does not show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.data_directory import DataDirectory
from novacron.security.audit import AuditLog
from novacron.security.audit_anchors import (
    AnchorsInvalidError,
    AuditAnchor,
    read_anchors,
    read_anchors_file,
    stored_hash,
)
from novacron.security.audit_head import AuditHead
from novacron.security.audit_verification import Verification, verify
from tests.security.rewriting import cut, records, rewrite
from tests.security.stand_ins import NODE_ID, prepared

RECORDS = 12


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("written")).root


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> DataDirectory:
    return DataDirectory(shutil.copytree(template, tmp_path / "node"))


def written(root: Path, **options: Any) -> DataDirectory:
    directory = prepared(root)
    log = AuditLog(directory, max_bytes=1200, **options)
    log.open_blocking()
    for number in range(RECORDS):
        log.append_blocking("test.action", "tester", f"thing {number}")
    log.close_blocking()
    return directory


def anchors(directory: DataDirectory, *numbers: int) -> list[AuditAnchor]:
    hashes = {record["seq"]: record["hash"] for record in records(directory)}
    return [AuditAnchor(NODE_ID, seq, hashes[seq], 1_800_000_000.0 + 300 * seq) for seq in numbers]


def check(directory: DataDirectory, held: list[AuditAnchor], **options: Any) -> Verification:
    head = AuditHead(directory.secrets / "audit.head")
    return verify(directory.audit, head, anchors=held, **options)


def texts(found: Verification) -> list[str]:
    return [str(problem) for problem in found.problems]


def scrub(record: dict[str, Any]) -> None:
    if record["target"] == "thing 4":
        record["target"] = "nothing"


def test_a_log_fits_its_own_anchors(directory: DataDirectory) -> None:
    found = check(directory, anchors(directory, 3, 7, 11))
    assert found.ok
    assert found.anchors is not None
    assert (found.anchors["given"], found.anchors["fitting"]) == (3, 3)
    assert found.anchors["newest_fitting"]["seq"] == 11


def test_a_chain_that_was_made_anew_verifies_alone_and_not_against_its_anchors(
    directory: DataDirectory,
) -> None:
    held = anchors(directory, 3, 7, 11)
    rewrite(directory, scrub)
    assert verify(directory.audit, AuditHead(directory.secrets / "audit.head")).ok
    found = check(directory, held)
    first, second = texts(found)
    assert first.startswith("anchor of record 7: the log has the hash ")
    assert f"{held[1].hash} was anchored at {held[1].when}" in first
    assert "up to record 3, anchored at" in first
    assert second.startswith("anchor of record 11")
    assert found.anchors is not None
    assert [entry["seq"] for entry in found.anchors["not_fitting"]] == [7, 11]


def test_what_was_rewritten_since_the_last_anchor_is_not_found(directory: DataDirectory) -> None:
    """The limit of it all, which the documentation states."""
    held = anchors(directory, 3)
    rewrite(directory, scrub, first=4)
    found = check(directory, held)
    assert found.ok
    assert found.anchors is not None
    assert found.anchors["newest_fitting"]["seq"] == 3


@settings(max_examples=20)  # each waits for the disk
@given(data=st.data())
def test_any_rewritten_record_up_to_the_newest_anchor_is_found(
    template: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = DataDirectory(shutil.copytree(template, tmp_path_factory.mktemp("any") / "node"))
    chosen = data.draw(st.sets(st.integers(1, RECORDS), min_size=1))
    held = anchors(directory, *chosen)
    changed = data.draw(st.integers(1, max(chosen)))

    def change(record: dict[str, Any]) -> None:
        if record["seq"] == changed:
            record["actor"] = "somebody else"

    rewrite(directory, change, first=data.draw(st.integers(1, changed)))
    assert not check(directory, held).ok


def test_a_log_that_is_shorter_than_its_newest_anchor_is_found(directory: DataDirectory) -> None:
    held = anchors(directory, 3, 7, 11)
    cut(directory, 6)
    assert verify(directory.audit, AuditHead(directory.secrets / "audit.head")).ok
    (problem,) = texts(check(directory, held))
    assert problem.startswith("anchor of record 11: the log ends with record 6")
    assert "missing at the end: 7 to 11" in problem


def test_a_log_that_is_gone_is_found(directory: DataDirectory) -> None:
    held = anchors(directory, 7)
    cut(directory, 0)
    (problem,) = texts(check(directory, held))
    assert "missing at the end: 1 to 7" in problem


def test_what_retention_removed_is_no_rewritten_chain(directory: DataDirectory) -> None:
    held = anchors(directory, 2, 11)
    log = AuditLog(directory, max_bytes=1200, keep_files=2)
    log.open_blocking()
    log.prune_blocking()
    log.close_blocking()
    assert records(directory)[0]["seq"] > 2
    found = check(directory, held)
    assert found.ok
    assert found.anchors is not None
    assert found.anchors["before_the_first_record"] == 1


def test_a_log_that_begins_after_every_anchor_is_proven_by_none(directory: DataDirectory) -> None:
    """Else a made-up log would only have to say that what was anchored is gone because it was old."""
    held = anchors(directory, 2)
    log = AuditLog(directory, max_bytes=1200, keep_files=2)
    log.open_blocking()
    log.prune_blocking()
    log.close_blocking()
    (problem,) = texts(check(directory, held))
    assert "the anchors prove nothing of it" in problem


def test_no_anchor_at_all_proves_nothing(directory: DataDirectory) -> None:
    assert texts(check(directory, [])) == ["anchors: there is no anchor to hold the log against"]


def test_of_two_anchors_of_one_record_one_does_not_fit(directory: DataDirectory) -> None:
    (good,) = anchors(directory, 7)
    bad = good._replace(hash="f" * 64, recorded=good.recorded + 60)
    (problem,) = texts(check(directory, [bad, good]))
    assert bad.hash in problem
    assert bad.when in problem


def test_anchors_up_to_damage_that_is_known_are_left_out(directory: DataDirectory) -> None:
    held = anchors(directory, 3, 7, 11)
    bad = [held[0]._replace(hash="f" * 64), *held[1:]]
    assert not check(directory, bad).ok
    assert check(directory, bad, after=3).ok


def test_records_left_out_of_an_export_need_not_fit(
    directory: DataDirectory, tmp_path: Path
) -> None:
    held = anchors(directory, 3, 7, 11)
    export = tmp_path / "export.jsonl"
    lines = b"".join(path.read_bytes() for path in sorted(directory.audit.glob("*.jsonl")))
    export.write_bytes(b"".join(lines.splitlines(keepends=True)[4:9]))
    found = verify(export, None, filtered=True, anchors=held)
    assert found.ok
    assert found.anchors is not None
    assert found.anchors["fitting"] == 1


def test_many_that_do_not_fit_are_told_in_a_few_lines(directory: DataDirectory) -> None:
    held = [anchor._replace(hash="f" * 64) for anchor in anchors(directory, *range(1, RECORDS + 1))]
    found = texts(check(directory, held))
    assert len(found) == 6
    assert found[-1].startswith(f"anchor of record {RECORDS}: 7 more anchors up to this one")


def test_the_hash_of_a_record_is_found_in_whichever_file_it_is(directory: DataDirectory) -> None:
    for record in records(directory):
        assert stored_hash(directory.audit, record["seq"]) == record["hash"]
    assert stored_hash(directory.audit, RECORDS + 1) == ""
    assert stored_hash(directory.audit, 0) is None
    path = sorted(directory.audit.glob("*.jsonl"))[0]
    path.write_bytes(path.read_bytes().replace(b"thing 0", b"nothing"))
    assert stored_hash(directory.audit, 1) == ""
    second = json.loads(path.read_bytes().splitlines()[1])
    path.write_bytes(path.read_bytes() + b"no record\n")
    assert stored_hash(directory.audit, 2) == second["hash"]


def test_a_list_of_anchors_is_read_as_it_was_written(
    directory: DataDirectory, tmp_path: Path
) -> None:
    held = anchors(directory, 3, 7)
    path = tmp_path / "anchors.json"
    path.write_text(json.dumps({"anchors": [anchor.document() for anchor in held]}))
    assert read_anchors_file(path) == held


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"anchors": [1]}',
        b'{"anchors": [{"node_id": "n", "seq": true, "hash": "h", "recorded": "2027-01-01T00:00:00Z"}]}',
        b'{"anchors": [{"node_id": "n", "seq": 1, "hash": "h", "recorded": "yesterday"}]}',
    ],
)
def test_anything_else_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "anchors.json"
    path.write_bytes(content)
    with pytest.raises(AnchorsInvalidError, match="novacron audit anchors"):
        read_anchors_file(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["anchors", "node_id", "seq", "hash", "recorded"]), inner
            )
        ),
    )
)
def test_no_document_does_worse_than_being_refused(document: Any) -> None:
    try:
        found = read_anchors(document, "a test")
    except AnchorsInvalidError:
        return
    assert all(type(anchor.seq) is int for anchor in found)

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from novacron.dwcp.amst.store import (
    KEPT_ENDED,
    IncomingRecord,
    IncomingStore,
    Ledger,
    OutgoingRecord,
    OutgoingStore,
)
from novacron.dwcp.hde.report import Coded, CodingReport, StageSeconds

ID = "0123456789abcdef" * 2


def outgoing(number: int = 0, *, ended: bool = False) -> OutgoingRecord:
    return OutgoingRecord(
        id=f"{number:032x}",
        peer="node",
        paths=["/a", "/ü"],
        path="b",
        priority="normal",
        limit_bps=0,
        overwrite=False,
        on_change="refuse",
        recursive=True,
        chunk_bytes=65536,
        created_at=1000.5 + number,
        state="done" if ended else "moving",
        finished_at=2000.0 if ended else None,
    )


def incoming(id: str = ID) -> IncomingRecord:
    return IncomingRecord(
        id=id,
        peer="node",
        path="x",
        into=False,
        overwrite=True,
        on_change="restart",
        priority="urgent",
        created_at=5.0,
        prefix="x",
    )


def test_what_is_saved_is_loaded_the_oldest_first(tmp_path: Path) -> None:
    store = OutgoingStore(tmp_path / "outgoing")
    assert store.load() == []
    for number in (3, 1, 2):
        store.save(outgoing(number))
    store.save(outgoing(2)._replace(state="paused", paused=True))
    loaded = store.load()
    assert [record.id for record in loaded] == [outgoing(number).id for number in (1, 2, 3)]
    assert loaded[1].paused
    assert loaded[0] == outgoing(1)
    assert os.stat(tmp_path / "outgoing").st_mode & 0o777 == 0o700


def test_of_what_is_over_only_the_last_are_kept(tmp_path: Path) -> None:
    store = OutgoingStore(tmp_path)
    store.load()
    for number in range(KEPT_ENDED + 5):
        store.save(outgoing(number, ended=True))
    store.save(outgoing(0)._replace(id="f" * 32))  # older than all, and under way
    assert len(store.load()) == KEPT_ENDED + 1
    assert len(os.listdir(tmp_path)) == KEPT_ENDED + 1
    assert store.load()[-1].id == outgoing(KEPT_ENDED + 4).id


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 500,
        b"[]",
        b"{}",
        b'{"format": 1}',
        b"[" * 5000,
        json.dumps({"format": 2, **outgoing()._asdict()}).encode(),
        json.dumps({"format": 1, **outgoing()._asdict(), "paths": "abc"}).encode(),
        json.dumps({"format": 1, **outgoing()._asdict(), "paths": [1]}).encode(),
        json.dumps({"format": 1, **outgoing()._asdict(), "created_at": None}).encode(),
        json.dumps({"format": 1, **outgoing()._asdict(), "unknown": 1}).encode(),
    ],
)
def test_a_damaged_record_is_set_aside_and_the_others_are_read(
    tmp_path: Path, damage: bytes
) -> None:
    store = OutgoingStore(tmp_path)
    store.save(outgoing(1))
    (tmp_path / f"{ID}.json").write_bytes(damage)
    assert store.load() == [outgoing(1)]
    assert (tmp_path / f"{ID}.json.unreadable").read_bytes() == damage
    assert store.load() == [outgoing(1)]


def test_an_incoming_record_lies_in_its_own_directory(tmp_path: Path) -> None:
    store = IncomingStore(tmp_path)
    assert store.load() == []
    store.save(incoming())
    (tmp_path / "something else").mkdir()
    (tmp_path / ("a" * 32)).mkdir()  # a crash before its record was written
    assert store.load() == [incoming()]
    (store.directory(ID) / "x.journal").write_bytes(b"x")
    store.remove(ID)
    assert store.load() == []
    store.remove(ID)


def test_a_record_that_was_copied_elsewhere_is_not_believed(tmp_path: Path) -> None:
    store = IncomingStore(tmp_path)
    store.save(incoming())
    os.rename(tmp_path / ID, tmp_path / ("b" * 32))
    assert store.load() == []


def test_the_age_is_that_of_the_last_change(tmp_path: Path) -> None:
    store = IncomingStore(tmp_path)
    assert store.age(ID) == 0.0
    store.save(incoming())
    old = time.time() - 5000
    for path in (tmp_path / ID, tmp_path / ID / "transfer.json"):
        os.utime(path, (old, old))
    assert store.age(ID) > 4000
    (tmp_path / ID / "entries").touch()
    assert store.age(ID) < 4000


# --- The ledger -------------------------------------------------------------------------------


def identity(number: int) -> bytes:
    return bytes([number]) * 32


def test_a_ledger_remembers_what_was_opened_and_finished(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.note_open([("a", identity(1)), ("dir/ü", identity(2))])
    ledger.note_finished([("a", identity(1))])
    ledger.close()
    again = Ledger(tmp_path)
    # Until its part file is known to be gone, a finished file may have one.
    assert again.opened == {"a": identity(1).hex(), "dir/ü": identity(2).hex()}
    assert again.version("a") == identity(1)[:16]
    assert again.version("dir/ü") is None
    again.note_gone(["a"])
    again.close()
    last = Ledger(tmp_path)
    assert last.opened == {"dir/ü": identity(2).hex()}
    assert last.version("a") == identity(1)[:16]


def test_a_torn_line_is_as_if_it_had_not_been_written_and_later_ones_are_read(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    ledger.note_open([("a", identity(1)), ("b", identity(2))])
    ledger.close()
    path = tmp_path / "entries"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        again = Ledger(tmp_path)
        again.note_open([("c", identity(3))])
        again.close()
        found = Ledger(tmp_path).opened
        assert found["c"] == identity(3).hex()
        assert set(found) == ({"a", "c"} if cut >= first else {"c"})


def test_a_line_that_is_nonsense_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "entries").write_bytes(
        b'["done", "x", "not hex"]\n[]\n{}\n\xff\xfe\n["open", "a", "00"]\n["other", 1, 2]\n'
    )
    ledger = Ledger(tmp_path)
    assert ledger.opened == {"a": "00"}
    assert ledger.finished == {}


REPORT = CodingReport(zstd=Coded(2, 200, 50), cpu_seconds=StageSeconds(encode=0.5))


def test_how_a_transfer_was_encoded_is_kept(tmp_path: Path) -> None:
    store = OutgoingStore(tmp_path)
    store.save(outgoing(1)._replace(codec="zstd:-3", coding=REPORT.as_json()))
    (loaded,) = store.load()
    assert loaded.codec == "zstd:-3"
    assert CodingReport.of_json(loaded.coding) == REPORT


@pytest.mark.parametrize(
    ("name", "value"), [("codec", "gzip"), ("coding", {"zstd": 1}), ("coding", 3)]
)
def test_a_record_with_an_account_that_is_none_is_set_aside(
    name: str, value: object, tmp_path: Path
) -> None:
    store = OutgoingStore(tmp_path)
    store.save(outgoing(1)._replace(**{name: value}))
    assert store.load() == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".unreadable"]


def test_a_record_of_a_version_without_codecs_is_taken(tmp_path: Path) -> None:
    store = OutgoingStore(tmp_path)
    store.save(outgoing(1))
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    del document["codec"], document["coding"]
    path.write_text(json.dumps(document))
    (loaded,) = store.load()
    assert (loaded.codec, loaded.coding) == ("", {})

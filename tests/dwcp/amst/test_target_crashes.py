"""Receiving dies after any one of its disk operations: what is there then can be relied on.

Every operation is a place to die: killed, or with the power cut and part of what was not synced
missing (``tests/boot/crash_disk.py``). Each time the object goes on and is finished.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from pathlib import Path
from unittest import mock
from zlib import crc32

import pytest

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.chunks import wrong_chunks
from novacron.dwcp.amst.errors import JournalError
from novacron.dwcp.amst.journal import Journal, Subject, create_journal, open_journal
from novacron.dwcp.amst.paths import Confinement
from novacron.dwcp.amst.targets import PartFile, create_part, is_finished, open_part
from tests.boot.crash_disk import VARIANTS, CrashDisk, read_tree, write_tree

TRANSFER = bytes(range(16))
CHUNK = 4096
CONTENT = (
    b"".join(bytes([65 + chunk]) * CHUNK if chunk != 2 else bytes(CHUNK) for chunk in range(6))
    + b"end"
)
CHUNKS = 7
SUBJECT = Subject(TRANSFER, 0, len(CONTENT), CHUNK, bytes(32))
LEAVES = array("I", [crc32(CONTENT[at : at + CHUNK]) for at in range(0, len(CONTENT), CHUNK)])
TIME = 1_700_000_000_000_000_001


def receive_rest(part: PartFile, journal: Journal, *, last: bool) -> None:
    """Write what the journal does not have, with a checkpoint after each two chunks, and after the
    last one only where asked: finishing has to do without."""
    bits = bytearray(journal.bits)
    for index, (chunk, _) in enumerate(
        (chunk, 1) for chunk in (1, 0, 3, 2, 6, 5, 4) if not runs.is_set(bits, chunk)
    ):
        data = CONTENT[chunk * CHUNK : (chunk + 1) * CHUNK]
        if any(data):  # blocks of zeros are not written
            os.pwrite(part.descriptor, data, chunk * CHUNK)
        runs.set_run(bits, chunk, 1)
        if index % 2:
            part.checkpoint(
                journal, bytes(bits), lambda first, count: LEAVES[first : first + count]
            )
    if last:
        part.checkpoint(journal, bytes(bits), lambda first, count: LEAVES[first : first + count])


def receive(root: Path, overwrite: bool) -> str:
    """Begin, or go on with what is there. Says what it found."""
    path = root / "journal"
    with Confinement([root / "target"]).open_target("disk", into=False) as place:
        try:
            journal = open_journal(path, SUBJECT)
        except (FileNotFoundError, JournalError) as exc:
            found = type(exc).__name__
            journal = create_journal(path, SUBJECT)
        else:
            found = f"{runs.count_set(journal.bits)} chunks"
        try:
            part = open_part(place, TRANSFER, len(CONTENT))
            if part is None:
                if is_finished(place, len(CONTENT), TIME):
                    return f"finished with {found}"
                # Whatever the journal says is gone with the part file.
                journal.close()
                journal = create_journal(path, SUBJECT)
                part = create_part(place, TRANSFER, len(CONTENT), overwrite=overwrite)
            with part:
                for run in runs.runs_of(journal.bits, CHUNKS):
                    wrong = wrong_chunks(part.descriptor, len(CONTENT), CHUNK, run, journal.leaves)
                    assert not wrong, "the journal said that these are durable"
                    assert all(
                        journal.leaves[chunk] == LEAVES[chunk]
                        for chunk in range(run[0], run[0] + run[1])
                    )
                part.clear(bytes(journal.bits), CHUNK)
                receive_rest(part, journal, last=overwrite)
                part.finish(0o640, TIME, overwrite=overwrite)
        finally:
            journal.close()
    return found


@pytest.mark.parametrize("overwrite", [True, False])
def test_it_goes_on_from_wherever_it_died(tmp_path: Path, overwrite: bool) -> None:
    root = tmp_path / "recorded"
    (root / "target").mkdir(parents=True)
    if overwrite:
        (root / "target" / "disk").write_bytes(b"old content")
    before = read_tree(root).get("target/disk")
    disk = CrashDisk(root)
    with disk.recording():
        assert receive(root, overwrite) == "FileNotFoundError"
    assert len(disk.operations) > 20
    found: Counter[str] = Counter()
    for count in range(len(disk.operations) + 1):
        for number, variant in enumerate(VARIANTS):
            left = disk.after(count, variant)
            assert left.get("target/disk") in (before, CONTENT)
            again = tmp_path / f"{count}-{number}"
            write_tree(again, left)
            if left.get("target/disk") == CONTENT:
                # Replayed files have no times.
                os.utime(again / "target/disk", ns=(TIME, TIME))
            part = next((name for name in left if name.endswith("novacron-part")), None)
            if part is not None and left.get("target/disk") == CONTENT:
                # Nor are two names of one file one file.
                (again / part).unlink()
                os.link(again / "target/disk", again / part)
            with mock.patch.object(os, "fsync"), mock.patch.object(os, "fdatasync"):
                found[receive(again, overwrite)] += 1
            assert (again / "target/disk").read_bytes() == CONTENT
            assert sorted(os.listdir(again / "target")) == ["disk"]
    # It did die in all those places, and none of it was for nothing.
    assert {"FileNotFoundError", "0 chunks", "2 chunks", "6 chunks"} <= set(found)
    assert found["finished with 7 chunks" if overwrite else "finished with 6 chunks"]

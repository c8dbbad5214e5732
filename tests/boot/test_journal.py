"""The undo journal: every step on disk before its effect, and none forgotten by damage elsewhere."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from novacron.boot.journal import UndoJournal, UndoStep
from tests.boot.damage import bit_flips, damages, truncations

MARK = "boot/init_start"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "undo.journal"


def reopen(path: Path, mark: str | None = "", owed: list[UndoStep] | None = None) -> UndoJournal:
    return UndoJournal(path, mark, owed or ())


def kinds(journal: UndoJournal) -> list[str]:
    return [step.kind for step in journal.owed]


def three_steps(path: Path) -> list[UndoStep]:
    """A journal in which a, b and c were recorded, and b cleared."""
    journal = reopen(path)
    steps = [
        journal.owe("part", kind, {"path": f"/{kind}", "n": 1}, until_stop=kind == "c")
        for kind in "abc"
    ]
    journal.clear(steps[1].id)
    journal.close()
    return steps


def test_what_is_owed_survives_the_process_in_order(path: Path) -> None:
    a, _, c = three_steps(path)

    again = reopen(path)
    assert again.owed == [a, c]
    assert again.damage is None


def test_nothing_is_written_before_something_is_owed(path: Path) -> None:
    journal = reopen(path)
    journal.clear("unknown")
    journal.compact()
    journal.close()

    assert not path.exists()


def test_a_step_is_on_disk_when_owe_returns(path: Path) -> None:
    journal = reopen(path)
    step = journal.owe("part", "a", {}, until_stop=False)

    assert reopen(path).owed == [step]
    journal.close()


def test_steps_of_an_older_checkpoint_are_permanent_but_for_those_it_lists(path: Path) -> None:
    journal = reopen(path)
    journal.owe("part", "permanent", {}, until_stop=False)
    long = journal.owe("part", "long", {}, until_stop=True)
    journal.commit(MARK, [long])
    newer = journal.owe("part", "newer", {}, until_stop=False)
    assert journal.owed == [long, newer]
    journal.close()

    assert reopen(path, MARK, [long]).owed == [long, newer]


def test_a_clear_counts_for_steps_that_only_the_checkpoint_lists(path: Path) -> None:
    step = UndoStep("1", "part", "long", {}, True)
    journal = reopen(path, MARK, [step])
    journal.clear("1")
    journal.close()

    assert reopen(path, MARK, [step]).owed == []


def test_without_a_checkpoint_everything_in_the_journal_counts(path: Path) -> None:
    a, _, c = three_steps(path)

    assert reopen(path, None).owed == [a, c]
    assert reopen(path, "another/checkpoint").owed == []


def test_compacting_leaves_what_is_owed_and_no_more(path: Path) -> None:
    _, _, c = three_steps(path)
    journal = reopen(path)
    journal.commit(MARK, [c])
    journal.compact()
    journal.owe("part", "d", {}, until_stop=False)
    journal.close()

    assert path.read_bytes().count(b"\n") == 3
    assert kinds(reopen(path, MARK, [c])) == ["c", "d"]
    assert kinds(reopen(path, None)) == ["c", "d"]


def test_every_damage_is_noticed_and_what_is_still_whole_is_still_owed(path: Path) -> None:
    steps = three_steps(path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for damaged in damages(content):
        path.write_bytes(damaged)
        journal = reopen(path)
        assert journal.damage is not None
        whole = [line in damaged.splitlines(keepends=True) for line in lines]
        assert journal.owed == [
            step for i, step in enumerate(steps) if whole[i] and not (i == 1 and whole[3])
        ]
        journal.close()


def test_a_damaged_file_is_untouched_until_it_is_repaired(path: Path) -> None:
    three_steps(path)
    cut = path.read_bytes()[:-30]
    path.write_bytes(cut)
    journal = reopen(path)
    assert path.read_bytes() == cut
    owed = journal.owed
    journal.repair()

    assert journal.damage is None
    again = reopen(path)
    assert (again.damage, again.owed) == (None, owed)
    journal.owe("part", "later", {}, until_stop=False)
    journal.close()
    assert kinds(reopen(path))[-1] == "later"


def test_an_empty_file_has_lost_something(path: Path) -> None:
    path.write_bytes(b"")

    assert reopen(path).damage == "its end is missing"


def test_whole_lines_that_are_missing_are_noticed(path: Path) -> None:
    three_steps(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for missing in range(len(lines)):
        path.write_bytes(b"".join(lines[:missing] + lines[missing + 1 :]))
        assert reopen(path).damage is not None


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "undo.journal"
    path.write_bytes(data)
    journal = reopen(path, None)

    assert journal.owed == []
    assert journal.damage is not None


@pytest.mark.parametrize(
    "entry",
    [
        b"[]",
        b"{}",
        b'{"op":"other"}',
        b'{"op":"owe"}',
        b'{"op":"owe","after":"","step":{}}',
        b'{"op":"owe","after":"","step":[]}',
        b'{"op":"owe","after":"","step":{"id":1,"component":"a","kind":"b","arguments":{},"until_stop":true}}',
        b'{"op":"owe","after":"","step":{"id":"1","component":"a","kind":"b","arguments":[],"until_stop":true}}',
        b'{"op":"clear"}',
        b'{"op":"clear","id":[]}',
        b"not json",
        b"[" * 100_000,
    ],
)
def test_an_entry_of_another_shape_is_damage_even_with_a_right_checksum(
    path: Path, entry: bytes
) -> None:
    line = b"%08x %s\n" % (zlib.crc32(entry), entry)
    path.write_bytes(line + b"end %08x\n" % zlib.crc32(line))
    journal = reopen(path)

    assert journal.owed == []
    assert journal.damage is not None


def test_a_full_disk_leaves_the_journal_whole_and_the_step_not_owed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = reopen(path)
    kept = journal.owe("part", "kept", {}, until_stop=False)
    real, short = os.pwrite, [True]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        return real(descriptor, data[:20] if short.pop() else data, offset)

    with monkeypatch.context() as patch:
        short = [False, True]
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match="No space left") as caught:
            journal.owe("part", "lost", {}, until_stop=False)
    assert caught.value.errno == errno.ENOSPC
    assert journal.owed == [kept]
    again = reopen(path)
    assert (again.owed, again.damage) == ([kept], None)
    later = journal.owe("part", "later", {}, until_stop=False)
    journal.close()
    assert reopen(path).owed == [kept, later]


def test_a_step_that_could_not_be_cleared_on_disk_stays_owed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = reopen(path)
    step = journal.owe("part", "a", {}, until_stop=False)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            journal.clear(step.id)
    assert journal.owed == [step]
    journal.close()


def test_threads_that_record_at_once_do_not_spoil_each_others_entries(path: Path) -> None:
    journal = reopen(path)

    def record(name: str) -> None:
        for _ in range(20):
            step = journal.owe(name, "short", {}, until_stop=False)
            journal.owe(name, "long", {}, until_stop=True)
            journal.clear(step.id)

    threads = [threading.Thread(target=record, args=(f"c{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    journal.close()

    again = reopen(path)
    assert again.damage is None
    assert kinds(again) == ["long"] * 80


class JournalMachine(RuleBasedStateMachine):
    """Whatever is recorded, cleared, committed and compacted: a new process owes the same."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name) / "undo.journal"
        self.journal = UndoJournal(self.path, "")
        self.mark = ""
        self.base: list[UndoStep] = []
        self.model: list[UndoStep] = []
        self.commits = 0

    @rule(until_stop=st.booleans(), arguments=st.dictionaries(st.text(), st.text(), max_size=2))
    def owe(self, until_stop: bool, arguments: dict[str, str]) -> None:
        self.model.append(self.journal.owe("part", "kind", arguments, until_stop=until_stop))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.model))
        self.model.remove(step)
        self.journal.clear(step.id)

    @rule(compact=st.booleans())
    def commit(self, compact: bool) -> None:
        self.commits += 1
        self.mark = f"boot/{self.commits}"
        self.model = self.base = [step for step in self.model if step.until_stop]
        self.model = list(self.base)
        self.journal.commit(self.mark, self.base)
        if compact:
            self.journal.compact()

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = UndoJournal(self.path, self.mark, self.base)

    @invariant()
    def a_new_process_owes_the_same(self) -> None:
        seen = UndoJournal(self.path, self.mark, self.base)
        assert seen.damage is None
        assert seen.owed == self.journal.owed == self.model

    def teardown(self) -> None:
        self.journal.close()
        self._directory.cleanup()


JournalMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_any_history_is_the_same_to_the_next_process = JournalMachine.TestCase


def test_the_helpers_damage_every_byte() -> None:
    assert list(truncations(b"ab")) == [b"", b"a"]
    assert len(set(bit_flips(b"ab"))) == 16

"""What a boot finds of the one before, whatever happened to the files in between."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from novacron.boot.checkpoint import (
    CHECKPOINTS,
    INIT_START,
    ROLLED_BACK,
    STOPPED,
    BootState,
    StateWriteError,
)
from novacron.boot.sealed import seal
from novacron.data_directory import DataDirectory
from tests.boot.damage import damages

FILES = ("checkpoint.json", "undo.journal", "last-known-good.json")
CONFIGURATION = {"api": {"port": 1}}


@pytest.fixture
def data(data_directory: DataDirectory) -> DataDirectory:
    data_directory.boot.mkdir()
    return data_directory


def open_state(data: DataDirectory, boot_id: str = "b1", digest: str = "d1") -> BootState:
    state = BootState(data, boot_id)
    state.describe_configuration(digest, CONFIGURATION)
    return state


def owed(state: BootState) -> list[str]:
    return [step.kind for step in state.journal.owed]


def crashed(data: DataDirectory) -> None:
    """A boot that died after core: one step until the stop, one since the checkpoint."""
    state = open_state(data)
    state.remember_known_good()
    state.write_checkpoint(INIT_START, [])
    state.journal.owe("part", "permanent", {}, until_stop=False)
    state.journal.owe("part", "long", {}, until_stop=True)
    state.write_checkpoint(CHECKPOINTS[2], ["part"])
    state.journal.owe("part", "short", {}, until_stop=False)
    state.close()


def test_the_first_boot_finds_nothing(data: DataDirectory) -> None:
    state = open_state(data)

    assert (state.previous, owed(state), state.known_good()) == (None, [], None)
    assert not state.stopped_in_order
    assert not state.differs_from_known_good()
    assert list(data.boot.iterdir()) == []


def test_a_checkpoint_holds_what_the_next_boot_must_know(data: DataDirectory) -> None:
    crashed(data)
    previous = BootState(data, "b2").previous

    assert previous is not None
    owed_steps = previous.pop("owed")
    assert previous == {
        "boot_id": "b1",
        "checkpoint": "core_init_complete",
        "started": ["part"],
        "configuration_digest": "d1",
        "configuration": CONFIGURATION,
    }
    assert [step["kind"] for step in owed_steps] == ["long"]


def test_a_crash_leaves_the_steps_since_the_checkpoint_and_the_long_ones(
    data: DataDirectory,
) -> None:
    crashed(data)
    state = open_state(data, "b2")

    assert owed(state) == ["long", "short"]
    assert state.quarantined == []
    state.close()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_alone_makes_earlier_steps_permanent_whatever_the_journal_says(
    data: DataDirectory, name: str
) -> None:
    state = open_state(data)
    state.journal.owe("part", "short", {}, until_stop=False)
    state.journal.owe("part", "long", {}, until_stop=True)
    before = (data.boot / "undo.journal").read_bytes()
    state.write_checkpoint(name, [])
    state.close()
    # As if the process had died right after the rename of the checkpoint.
    (data.boot / "undo.journal").write_bytes(before)
    state = open_state(data, "b2")

    assert owed(state) == ["long"]
    state.close()


@pytest.mark.parametrize("name", [STOPPED, ROLLED_BACK])
def test_what_could_not_be_undone_stays_owed_after_the_end(data: DataDirectory, name: str) -> None:
    crashed(data)
    state = open_state(data, "b2")
    state.write_checkpoint(name, [])
    state.close()
    state = open_state(data, "b3")

    assert state.stopped_in_order
    assert owed(state) == ["long", "short"]
    state.close()


def test_an_ordered_end_leaves_nothing(data: DataDirectory) -> None:
    crashed(data)
    state = open_state(data, "b2")
    for step in state.journal.owed:
        state.journal.clear(step.id)
    state.write_checkpoint(STOPPED, [])
    state.close()

    assert owed(BootState(data, "b3")) == []
    assert (data.boot / "undo.journal").read_bytes() == b"end 00000000\n"


@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_quarantined_and_named_and_the_boot_goes_on(
    data: DataDirectory, name: str
) -> None:
    crashed(data)
    kept = data.root / "kept"
    shutil.copytree(data.boot, kept)
    content = (data.boot / name).read_bytes()
    # That each single one is noticed is tested where it is cheap, in test_sealed and test_journal;
    # here every nineteenth goes the whole way.
    for damaged in list(damages(content))[::19]:
        shutil.rmtree(data.boot)
        shutil.copytree(kept, data.boot)
        (data.boot / name).write_bytes(damaged)
        state = open_state(data, "b2")
        [message] = state.quarantined
        assert message.startswith(f"{name} was damaged (")
        [box] = data.quarantine_area.iterdir()
        assert str(box) in message
        assert box.read_bytes() == damaged
        if name == "checkpoint.json":
            assert state.previous is None
            assert set(owed(state)) == {"permanent", "long", "short"}
        else:
            assert "long" in owed(state)
            assert "permanent" not in owed(state)
        assert (state.known_good() is None) is (name == "last-known-good.json")
        state.write_checkpoint(INIT_START, [])
        state.remember_known_good()
        state.close()
        after = BootState(data, "b3")
        assert after.quarantined == []
        assert after.known_good() is not None
        after.close()
        shutil.rmtree(data.quarantine_area)


def test_all_three_zeroed_at_once_is_a_boot_with_three_reports(data: DataDirectory) -> None:
    crashed(data)
    for name in FILES:
        path = data.boot / name
        path.write_bytes(bytes(path.stat().st_size))
    state = open_state(data, "b2")

    assert [text.split()[0] for text in state.quarantined] == [FILES[0], FILES[2], FILES[1]]
    assert owed(state) == []
    state.close()


def test_a_crash_between_the_quarantine_of_the_journal_and_its_repair_loses_nothing(
    data: DataDirectory,
) -> None:
    crashed(data)
    path = data.boot / "undo.journal"
    path.write_bytes(path.read_bytes()[:-5])
    data.quarantine_copy(path)
    state = open_state(data, "b2")

    assert owed(state) == ["long", "short"]
    assert len(list(data.quarantine_area.iterdir())) == 2
    state.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"boot_id": "b", "checkpoint": "init_start"},
        {"boot_id": 1, "checkpoint": "init_start", "owed": []},
        {"boot_id": "b", "checkpoint": "init_start", "owed": [{"id": "1"}]},
        {"boot_id": "b", "checkpoint": "init_start", "owed": [1]},
        {"boot_id": "b", "checkpoint": "init_start", "owed": {}},
    ],
)
def test_a_sealed_checkpoint_of_another_shape_is_damaged_too(
    data: DataDirectory, body: dict[str, object]
) -> None:
    (data.boot / "checkpoint.json").write_bytes(seal(body))
    state = open_state(data)

    assert state.previous is None
    assert len(state.quarantined) == 1


def test_a_sealed_known_good_without_a_configuration_is_damaged(data: DataDirectory) -> None:
    (data.boot / "last-known-good.json").write_bytes(seal({"digest": "d"}))

    assert len(open_state(data).quarantined) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_state_that_cannot_be_read_is_a_failure_with_a_remedy(
    data: DataDirectory, name: str
) -> None:
    (data.boot / name).mkdir()
    with pytest.raises(StateWriteError) as caught:
        BootState(data, "b")

    assert f"the boot state {data.boot / name} cannot be used" in caught.value.what
    assert caught.value.key == "system.data_dir"


@pytest.mark.parametrize("name", FILES)
def test_damage_that_cannot_be_set_aside_is_a_failure_with_a_remedy(
    data: DataDirectory, name: str
) -> None:
    (data.boot / name).write_bytes(b"\0")
    data.quarantine_area.write_text("a file where the directory would be")
    with pytest.raises(StateWriteError) as caught:
        BootState(data, "b")

    assert str(data.boot / name) in caught.value.what
    assert (data.boot / name).read_bytes() == b"\0"


def full_disk(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_checkpoint_on_a_full_disk_names_file_cause_and_remedy_and_the_old_one_stays(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed(data)
    state = open_state(data, "b2")
    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(StateWriteError) as caught:
        state.write_checkpoint(INIT_START, [])
    monkeypatch.undo()

    assert caught.value.what.startswith("checkpoint init_start cannot be written to ")
    assert caught.value.why == "No space left on device"
    assert "free some space" in caught.value.remedy
    assert caught.value.retryable
    assert owed(state) == ["long", "short"]
    state.close()
    again = BootState(data, "b3")
    assert again.previous is not None
    assert again.previous["boot_id"] == "b1"
    assert owed(again) == ["long", "short"]


def test_a_known_good_configuration_on_a_full_disk_is_a_failure_with_a_remedy(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = open_state(data)
    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(StateWriteError) as caught:
        state.remember_known_good()

    assert "last known good configuration cannot be written" in caught.value.what
    assert state.known_good() is None


def test_the_known_good_configuration_is_written_when_it_changes_and_only_then(
    data: DataDirectory,
) -> None:
    path = data.boot / "last-known-good.json"
    state = open_state(data)
    state.remember_known_good()
    written = path.stat().st_ino
    open_state(data, "b2").remember_known_good()
    assert path.stat().st_ino == written
    changed = open_state(data, "b3", "d2")
    assert changed.differs_from_known_good()
    changed.remember_known_good()

    assert not changed.differs_from_known_good()
    assert path.stat().st_ino != written
    assert json.loads(path.read_bytes())["body"]["boot_id"] == "b3"


def test_temporary_files_of_a_writer_that_was_killed_go_and_others_stay(
    data: DataDirectory,
) -> None:
    crashed(data)
    (data.boot / "reports").mkdir()
    left = [
        data.boot / ".checkpoint.json.0a1b2c3d.tmp",
        data.boot / "reports" / ".x.json.ffffffff.tmp",
        data.root / ".identity.json.00000000.tmp",
    ]
    stays = [data.root / ".mine.tmp", data.root / ".note.0a1b2c3d", data.boot / ".a.XXXXXXXX.tmp"]
    for path in (*left, *stays):
        path.write_text("x")
    open_state(data, "b2").close()

    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in stays)


def test_a_temporary_file_that_cannot_be_removed_disturbs_nobody(data: DataDirectory) -> None:
    crashed(data)
    (data.boot / ".checkpoint.json.0a1b2c3d.tmp").mkdir()

    open_state(data, "b2").close()
    assert (data.boot / ".checkpoint.json.0a1b2c3d.tmp").is_dir()


def test_state_files_are_for_this_user_alone(data: DataDirectory) -> None:
    crashed(data)

    assert {Path(data.boot / name).stat().st_mode & 0o777 for name in FILES} == {0o600}

"""A boot that dies after any one of its disk operations: the next boot ends as if nothing had been.

The boots run here, with components that make real effects, and every operation on the disk is a
place to die: killed, or with the power cut and part of what was not synced missing.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio

from novacron.boot.checkpoint import CHECKPOINTS, INIT_START, BootState
from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.lock import DataDirectoryLock
from novacron.boot.node_view import BootRecord, EngineView
from novacron.boot.registry import Registry
from novacron.boot.sealed import DamagedFileError, unseal
from novacron.boot.undo import JournalledUndoLog
from novacron.component import (
    Announcer,
    Component,
    Criticality,
    JsonObject,
    Phase,
    UndoHandler,
    UndoLog,
)
from novacron.data_directory import DataDirectory
from novacron.durable import remove_durably, write_durably
from tests.boot.crash_disk import VARIANTS, CrashDisk, Tree, read_tree, write_tree
from tests.boot.fakes import QUICK, Broken

undone: Counter[str] = Counter()
"""How often each effect was undone, by file name."""


@pytest.fixture(autouse=True)
def nothing_undone() -> None:
    undone.clear()


def _remove(arguments: Mapping[str, Any]) -> None:
    undone[Path(arguments["path"]).name] += 1
    remove_durably(Path(arguments["path"]))


def _put_back(arguments: Mapping[str, Any]) -> None:
    undone[Path(arguments["path"]).name] += 1
    write_durably(Path(arguments["path"]), arguments["content"].encode())


class Effects:
    """What a boot's parts share: where the effects go, and whether the last part fails."""

    def __init__(self, root: Path, fails: bool) -> None:
        self.root = root
        self.fails = fails


class Part(Component):
    phase = Phase.CORE
    criticality = Criticality.CRITICAL
    undo_handlers: ClassVar[Mapping[str, UndoHandler]] = {"remove": _remove, "put_back": _put_back}

    def __init__(self, effects: Effects, undo: UndoLog) -> None:
        self.effects = effects
        self.undo = undo

    async def shutdown(self) -> None:
        pass


class Migration(Part):
    """Takes a version from 1 to 2 once; put back unless the phase is completed."""

    name = "migration"

    async def initialize(self, nursery: trio.Nursery) -> None:
        path = self.effects.root / "version"
        if path.exists() and path.read_text() == "2":
            return
        await self.undo.record(
            self.name, "put_back", {"path": str(path), "content": "1"}, until_stop=False
        )
        write_durably(path, b"2")


class Claim(Part):
    """Claims a thing for as long as the node runs."""

    name = "claim"

    def __init__(self, effects: Effects, undo: UndoLog, migration: Migration) -> None:
        super().__init__(effects, undo)
        self.path = effects.root / "claim"
        self.step = ""

    async def initialize(self, nursery: trio.Nursery) -> None:
        if self.path.exists():
            raise Broken("the claim of an earlier node was never undone")
        self.step = await self.undo.record(
            self.name, "remove", {"path": str(self.path)}, until_stop=True
        )
        write_durably(self.path, b"mine")

    async def shutdown(self) -> None:
        if self.step:
            step, self.step = self.step, ""
            remove_durably(self.path)
            await self.undo.discharge(step)


class Link(Part):
    """Made by each boot anew, and taken back by nobody but a rollback or a recovery."""

    name = "link"
    phase = Phase.SERVICES

    async def initialize(self, nursery: trio.Nursery) -> None:
        path = self.effects.root / "link"
        await self.undo.record(self.name, "remove", {"path": str(path)})
        write_durably(path, b"linked")


class Signal(Part, Announcer):
    """The last one."""

    name = "signal"
    phase = Phase.POST_INIT

    async def initialize(self, nursery: trio.Nursery) -> None:
        if self.effects.fails:
            raise Broken("the last part fails")

    async def announce(self) -> None:
        pass


def boot(root: Path, number: int, *, fails: bool = False) -> tuple[int, JsonObject]:
    """Boot and stop a node whose data directory and effects lie below *root*."""
    data = DataDirectory(root / "data")
    boot_id = f"boot{number}"
    view = EngineView(BootRecord(boot_id, 1, 0.0))
    lock = DataDirectoryLock(data, boot_id)
    state = BootState(data, boot_id)
    try:
        registry = Registry({Effects: Effects(root, fails), UndoLog: JournalledUndoLog(state)})
        for part in (Migration, Claim, Link, Signal):
            registry.add(part)
        state.describe_configuration("digest", {"key": "value"})

        def publish(event: Event) -> None:
            if event.kind == "node_ready":
                engine.request_stop("test")

        engine = Engine(registry.resolve(), QUICK, view, publish=publish, state=state)
        code = trio.run(engine.run)
    finally:
        state.close()
        lock.release()
    return code, view.report()


def record(root: Path, number: int, *, fails: bool = False) -> CrashDisk:
    disk = CrashDisk(root)
    with disk.recording():
        code, _ = boot(root, number, fails=fails)
    assert code == int(fails)
    return disk


def essence(root: Path) -> dict[str, object]:
    """What of a stopped node's files is not bound to one boot."""
    # A component's own half-written file is its own affair; those of the boot have to be gone.
    found: dict[str, object] = {
        path: content
        for path, content in read_tree(root).items()
        if path.startswith("data") or not path.endswith(".tmp")
    }
    assert found.pop("data/lock") is not None
    checkpoint = json.loads((root / "data/boot/checkpoint.json").read_bytes())["body"]
    del checkpoint["boot_id"]
    found["data/boot/checkpoint.json"] = checkpoint
    known = json.loads((root / "data/boot/last-known-good.json").read_bytes())["body"]
    del known["boot_id"]
    found["data/boot/last-known-good.json"] = known
    return found


def quarantined(root: Path) -> list[str]:
    area = root / "data/quarantine"
    return sorted(path.name for path in area.iterdir()) if area.exists() else []


def allowed_undos(tree: Tree) -> dict[str, int]:
    """How often the next boot may undo each effect: once, and not at all once it is permanent."""
    allowed = {"version": 1, "claim": 1, "link": 1}
    try:
        checkpoint = unseal(tree.get("data/boot/checkpoint.json") or b"")
    except DamagedFileError:
        return allowed
    if checkpoint["boot_id"] != "boot1":
        # Nothing of the boot that died can be owed before its first checkpoint.
        return dict.fromkeys(allowed, 0)
    reached = checkpoint["checkpoint"]
    position = CHECKPOINTS.index(reached) if reached in CHECKPOINTS else None
    if position is not None and position >= CHECKPOINTS.index("core_init_complete"):
        allowed["version"] = 0
    if position is not None and position >= CHECKPOINTS.index("service_init_complete"):
        allowed["link"] = 0
    if reached in ("stopped", "rolled_back"):
        return dict.fromkeys(allowed, 0)
    return allowed


def boot_after(tree: Tree, root: Path, number: int, *, what: str) -> None:
    """The next boot on *tree* succeeds and undoes no more than it may."""
    write_tree(root, tree)
    undone.clear()
    disk = CrashDisk(root)
    with disk.recording():  # for its speed: nothing is synced
        code, report = boot(root, number)
    assert code == 0, (what, report["failure"])
    allowed = allowed_undos(tree)
    assert all(undone[name] <= allowed[name] for name in undone), (what, undone, allowed)
    for name in quarantined(root):
        assert any(name in warning for warning in report["warnings"]), (what, name)


FRESH = "fresh"
HISTORIES = {
    FRESH: (),
    "booted before": (False,),
    "failed before": (True,),
}


def prepare(root: Path, history: tuple[bool, ...]) -> None:
    root.mkdir()
    (root / "version").write_text("1")
    for number, fails in enumerate(history):
        record(root, -number, fails=fails)


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, object]:
    """What an undisturbed boot leaves."""
    root = tmp_path / "undisturbed"
    prepare(root, ())
    with CrashDisk(root).recording():
        boot(root, 1)
    return essence(root)


def test_an_undisturbed_boot_leaves_its_permanent_effects_and_no_other(
    expected: dict[str, object],
) -> None:
    assert {path for path in expected if not path.startswith("data")} == {"version", "link"}
    assert expected["version"] == b"2"
    assert expected["data/boot/undo.journal"] == b"end 00000000\n"
    checkpoint = expected["data/boot/checkpoint.json"]
    assert isinstance(checkpoint, dict)
    assert (checkpoint["checkpoint"], checkpoint["owed"]) == ("stopped", [])
    assert undone == {}


@pytest.mark.parametrize("fails", [False, True], ids=["that succeeds", "that is rolled back"])
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_boot_can_die_after_any_operation(
    tmp_path: Path, variant: str, history: str, fails: bool, expected: dict[str, object]
) -> None:
    root = tmp_path / "root"
    prepare(root, HISTORIES[history])
    disk = record(root, 1, fails=fails)
    assert len(disk.operations) > 40
    for count in range(len(disk.operations) + 1):
        tree = disk.after(count, variant)
        work = tmp_path / str(count)
        what = f"after operation {count}: {disk.operations[count - 1][:3]}"
        # The effects' paths are part of the undo steps, so the node has to stay in its place.
        if root.exists():
            root.rename(tmp_path / f"before-{count}")
        boot_after(tree, root, 2, what=what)
        left = quarantined(root)
        if variant == "killed":
            assert left == [], what
        assert all(name.startswith("undo.journal.") for name in left), what
        found = essence(root)
        assert {
            p: c for p, c in found.items() if not p.startswith("data/quarantine")
        } == expected, what
        root.rename(work)


@pytest.mark.parametrize("seed", range(4))
def test_the_recovery_itself_can_die_after_any_operation(
    tmp_path: Path, seed: int, expected: dict[str, object]
) -> None:
    rng = random.Random(seed)
    root = tmp_path / "root"
    prepare(root, ())
    first = record(root, 1)
    start = [op[2] for op in first.operations if op[0] == "rename"].index("version")
    renames = [i for i, op in enumerate(first.operations) if op[0] == "rename"]
    # Somewhere between the first effect and the last checkpoint, where something is owed.
    cut = rng.randrange(renames[start], renames[-3])
    crashed = first.after(cut, rng.choice(list(VARIANTS)))
    root.rename(tmp_path / "first")
    write_tree(root, crashed)
    second = record(root, 2)
    for count in range(0, len(second.operations) + 1, 2):
        variant = rng.choice(list(VARIANTS))
        root.rename(tmp_path / f"before-{count}")
        write_tree(root, second.after(count, variant))
        undone.clear()
        with CrashDisk(root).recording():
            code, report = boot(root, 3)
        what = f"cut at {cut}, then after operation {count} ({variant})"
        assert code == 0, (what, report["failure"])
        assert all(times <= 1 for times in undone.values()), what
        found = essence(root)
        assert {
            p: c for p, c in found.items() if not p.startswith("data/quarantine")
        } == expected, what


def test_a_step_that_cannot_be_undone_halts_the_boot_and_stays_owed_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, object]
) -> None:
    root = tmp_path / "root"
    prepare(root, ())
    disk = record(root, 1)
    renames = [
        i for i, op in enumerate(disk.operations) if op[0] == "rename" and op[2] == "version"
    ]
    tree = disk.after(renames[0] + 1, "killed")
    root.rename(tmp_path / "first")
    write_tree(root, tree)

    def refuse(arguments: Mapping[str, Any]) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setitem(Part.undo_handlers, "put_back", refuse)
        for number in (2, 3):
            code, report = boot(root, number)
            assert code == 1
            assert report["failure"]["what"] == "what the previous run left behind cannot be undone"
            assert "migration" in report["failure"]["why"]
    code, report = boot(root, 4)
    assert code == 0
    assert report["recovered"]["undone"] == [{"component": "migration", "kind": "put_back"}]
    assert essence(root) == expected


def test_the_report_of_a_recovery_names_the_boot_that_died_and_what_was_undone(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    prepare(root, ())
    disk = record(root, 1)
    claims = [i for i, op in enumerate(disk.operations) if op[0] == "rename" and op[2] == "claim"]
    tree = disk.after(claims[0] + 1, "killed")
    root.rename(tmp_path / "first")
    write_tree(root, tree)
    _, report = boot(root, 2)

    assert report["recovered"] == {
        "boot_id": "boot1",
        "checkpoint": "pre_init_complete",
        "undone": [
            {"component": "claim", "kind": "remove"},
            {"component": "migration", "kind": "put_back"},
        ],
        "failures": [],
    }
    assert report["checkpoints"][0]["name"] == INIT_START


def test_a_clean_stop_leaves_nothing_to_recover(tmp_path: Path) -> None:
    prepare(tmp_path / "root", ())
    boot(tmp_path / "root", 1)
    _, report = boot(tmp_path / "root", 2)

    assert report["recovered"] is None
    assert undone == {}


def test_with_checkpoint_and_journal_moved_away_nothing_is_owed(tmp_path: Path) -> None:
    """The last resort of docs/runbook/cannot-be-undone.md."""
    root = tmp_path / "root"
    prepare(root, ())
    disk = record(root, 1)
    claims = [i for i, op in enumerate(disk.operations) if op[0] == "rename" and op[2] == "claim"]
    tree = disk.after(claims[0] + 1, "killed")
    root.rename(tmp_path / "first")
    write_tree(root, tree)
    for name in ("checkpoint.json", "undo.journal"):
        (root / "data" / "boot" / name).rename(tmp_path / name)
    (root / "claim").unlink()
    code, report = boot(root, 2)

    assert (code, report["recovered"], undone) == (0, None, {})

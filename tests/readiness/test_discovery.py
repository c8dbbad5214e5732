from __future__ import annotations

import json
import os

import pytest
import trio

from novacron.data_directory import DataDirectory
from novacron.errors import DatabaseError
from novacron.readiness.discovery import Discovery, RegistrationError
from tests.readiness.stand_ins import Node, NodeIdentity, Store, Undo


class Scene:
    def __init__(self, data: DataDirectory) -> None:
        self.node, self.undo, self.store = Node(), Undo(), Store()
        self.file = data.run / "node.json"
        self.discovery = Discovery(
            self.node,
            data,
            self.undo,
            NodeIdentity(),
            self.store,
            None,  # type: ignore[arg-type]
        )

    async def start(self) -> None:
        async with trio.open_nursery() as nursery:
            await self.discovery.initialize(nursery)


@pytest.fixture
def scene(data_directory: DataDirectory) -> Scene:
    return Scene(data_directory)


async def test_the_run_file_names_the_process_and_its_addresses(scene: Scene) -> None:
    await scene.start()

    assert json.loads(scene.file.read_bytes()) == {
        "pid": os.getpid(),
        "boot_id": scene.node.boot_id,
        "node_id": NodeIdentity.node_id,
        "addresses": scene.node.addresses,
    }
    assert "node_registration" in scene.store.statements[0][0]


async def test_the_run_file_is_owed_until_the_stop_and_the_step_undoes_it(scene: Scene) -> None:
    await scene.start()
    [(kind, arguments, until_stop)] = scene.undo.owed.values()

    assert until_stop
    Discovery.undo_handlers[kind](arguments)
    Discovery.undo_handlers[kind](arguments)
    assert not scene.file.exists()


async def test_a_stop_takes_everything_back(scene: Scene) -> None:
    await scene.start()
    await scene.discovery.shutdown()

    assert not scene.file.exists()
    assert scene.undo.owed == {}
    assert "stopped" in scene.store.statements[-1][0]


async def test_a_broken_database_does_not_leave_the_run_file_behind(scene: Scene) -> None:
    await scene.start()
    scene.store.broken = DatabaseError("gone")
    with pytest.raises(DatabaseError):
        await scene.discovery.shutdown()

    assert not scene.file.exists()
    assert scene.undo.owed == {}


async def test_a_changed_address_is_published_anew_and_an_unchanged_one_is_not(
    scene: Scene,
) -> None:
    await scene.start()
    await scene.discovery.announce()
    assert len(scene.store.statements) == 1

    scene.node.addresses = {**scene.node.addresses, "rest": "127.0.0.1:9"}
    await scene.discovery.announce()

    assert json.loads(scene.file.read_bytes())["addresses"]["rest"] == "127.0.0.1:9"
    assert len(scene.store.statements) == 2


async def test_a_run_file_that_cannot_be_written_is_explained(scene: Scene) -> None:
    scene.file.parent.write_text("a file where the directory should be")
    with pytest.raises(RegistrationError) as caught:
        await scene.discovery.initialize(None)  # type: ignore[arg-type]

    assert str(scene.file) in caught.value.what
    assert caught.value.key == "system.data_dir"

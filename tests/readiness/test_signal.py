from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from novacron.readiness.signal import ReadyFile, ReadyFileError, ReadySignal
from tests.readiness.stand_ins import Node


def signal(path: Path | None) -> tuple[ReadySignal, Node]:
    node = Node()
    return ReadySignal(node, ReadyFile(path), None, None), node  # type: ignore[arg-type]


async def test_the_file_appears_with_the_announcement_and_goes_with_the_stop(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ready"
    path.write_text("of an earlier node")
    ready, node = signal(path)
    await ready.initialize(None)  # type: ignore[arg-type]
    assert not path.exists()

    await ready.announce()
    assert json.loads(path.read_bytes()) == {
        "pid": os.getpid(),
        "boot_id": node.boot_id,
        "seconds": 0.5,
        "state": "ready",
        "degraded": ["cache"],
        "addresses": node.addresses,
    }
    node.addresses = {"rest": "127.0.0.1:9"}
    await ready.announce()
    assert json.loads(path.read_bytes())["addresses"] == {"rest": "127.0.0.1:9"}

    await ready.shutdown()
    assert not path.exists()


async def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    ready, _ = signal(None)
    await ready.initialize(None)  # type: ignore[arg-type]
    await ready.announce()
    await ready.shutdown()

    assert list(tmp_path.iterdir()) == []


async def test_a_directory_in_the_way_is_found_before_ready_is_promised(tmp_path: Path) -> None:
    ready, _ = signal(tmp_path / "missing" / "ready")
    with pytest.raises(ReadyFileError) as caught:
        await ready.initialize(None)  # type: ignore[arg-type]

    assert "missing" in str(caught.value)
    assert "--ready-file" in caught.value.remedy


async def test_a_stop_before_the_announcement_leaves_others_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    ready, _ = signal(path)
    path.write_text("somebody else's")
    await ready.shutdown()

    assert path.read_text() == "somebody else's"

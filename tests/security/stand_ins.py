"""What the security component sees of the rest of a node."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from novacron.component import NodeView
from novacron.config.schema import ApiSettings, NetworkSettings, SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.environment.identity import Identity
from novacron.security import Security

NODE_ID = "0b0f6a5e-3c56-4d1c-9f0e-2f6a3f3d7c11"
OTHER_ID = "7d0c0c57-6e2b-4f0a-8a4e-55d6e7a0b922"


class StandInIdentity:
    def __init__(self, node_id: str = NODE_ID) -> None:
        self.node_id = node_id


class StandInNode:
    """Takes warnings and has a boot id."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


def make_security(
    root: Path, node_id: str = NODE_ID, **settings: Any
) -> tuple[Security, StandInNode]:
    """A component on *root*, as a boot would make it."""
    node = StandInNode()
    security = Security(
        cast(Identity, StandInIdentity(node_id)),
        SecuritySettings(**settings),
        NetworkSettings(),
        ApiSettings(),
        DataDirectory(root),
        cast(NodeView, node),
    )
    return security, node


def prepared(root: Path) -> DataDirectory:
    """A data directory with the directories that are made before anything else."""
    directory = DataDirectory(root)
    for path in (directory.secrets, directory.pki, directory.audit):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def tree(root: Path) -> Mapping[str, bytes]:
    """Every file below *root* by its relative path."""
    return {
        str(Path(directory, name).relative_to(root)): Path(directory, name).read_bytes()
        for directory, _, names in os.walk(root)
        for name in names
    }


def without_locks(files: Mapping[str, bytes]) -> Sequence[str]:
    return sorted(name for name in files if not name.endswith("lock"))

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.component import NodeState
from novacron.environment.machine import Machine


class FakeView:
    """The part of :class:`novacron.component.NodeView` these components use."""

    def __init__(self) -> None:
        self.state = NodeState.STARTING
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)

    def warnings(self) -> list[str]:
        return self.said


@pytest.fixture
def view() -> FakeView:
    return FakeView()


class Tree:
    """Another machine's files, laid out under a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = Machine(str(root), str(root))

    def put(self, path: str, text: str = "") -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def link(self, path: str, target: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)

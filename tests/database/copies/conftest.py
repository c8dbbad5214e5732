from __future__ import annotations

from pathlib import Path

import pytest

from tests.database.copies.support import add_migration


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The revision of a migration that the code has and no database."""
    return add_migration(tmp_path / "migrations", monkeypatch)

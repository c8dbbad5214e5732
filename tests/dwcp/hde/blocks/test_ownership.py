"""Whose a file is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from novacron.dwcp.hde.blocks import ownership


@pytest.mark.parametrize(
    ("mark", "tenant", "indexed", "allowed"),
    [
        ("acme", "acme", False, True),
        ("acme", "other", True, False),
        ("acme", "default", True, False),
        (None, "default", False, True),
        (None, "acme", True, False),
    ],
)
def test_what_is_marked_is_looked_at_by_its_tenant_alone(
    tmp_path: Path, mark: str | None, tenant: str, indexed: bool, allowed: bool
) -> None:
    path = tmp_path / "file"
    path.touch()
    if mark is not None:
        descriptor = os.open(path, os.O_RDWR)
        ownership.mark(descriptor, mark)
        os.close(descriptor)
    with path.open() as file:
        assert ownership.is_of(file.fileno(), tenant, default="default", indexed=indexed) is allowed


@pytest.mark.parametrize("indexed", [True, False])
def test_where_there_are_no_marks_the_index_says_whose_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: bool
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, "not supported")

    path = tmp_path / "file"
    path.touch()
    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)
    with path.open() as file:
        ownership.mark(file.fileno(), "acme")
        for tenant in ("acme", "default"):
            found = ownership.is_of(file.fileno(), tenant, default="default", indexed=indexed)
            assert found is indexed

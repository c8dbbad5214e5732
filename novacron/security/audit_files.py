"""The names of the audit log's files."""

from __future__ import annotations

from pathlib import Path


def audit_files(directory: Path) -> list[Path]:
    """The log's files, oldest first: each is named after the number of its first record."""
    return sorted(directory.glob("audit-*.jsonl"))


def first_seq(path: Path) -> int:
    """The number in the name of *path*; 0 when there is none."""
    digits = path.stem.removeprefix("audit-")
    return int(digits) if digits.isascii() and digits.isdigit() else 0

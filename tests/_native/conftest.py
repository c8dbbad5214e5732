from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fake_verbs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A libibverbs that needs no hardware; FAKE_VERBS in the environment says what goes wrong."""
    tests = repository / "native" / "tests"
    library = tmp_path_factory.mktemp("verbs") / "libfake_verbs.so"
    compiler = os.environ.get("CC", "cc")
    flags = ["-std=gnu11", "-fPIC", "-shared", "-Wl,--version-script=fake_verbs.map"]
    subprocess.run(
        [compiler, *flags, "fake_verbs.c", "-o", str(library)],
        cwd=tests,
        check=True,
        timeout=60,
    )
    return str(library)

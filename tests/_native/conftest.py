from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def _built(repository: Path, folder: Path, name: str, *flags: str) -> str:
    library = folder / f"lib{name}.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-std=gnu11", "-fPIC", "-shared", f"{name}.c", "-o", str(library), *flags],
        cwd=repository / "native" / "tests",
        check=True,
        timeout=60,
    )
    return str(library)


@pytest.fixture(scope="session")
def fake_verbs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A libibverbs that needs no hardware; FAKE_VERBS in the environment says what goes wrong."""
    folder = tmp_path_factory.mktemp("verbs")
    return _built(repository, folder, "fake_verbs", "-Wl,--version-script=fake_verbs.map")


@pytest.fixture(scope="session")
def fake_crypto(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A libcrypto that computes wrongly; FAKE_CRYPTO in the environment says what."""
    return _built(repository, tmp_path_factory.mktemp("crypto"), "fake_crypto", "-ldl")

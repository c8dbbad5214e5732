from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def _built(repository: Path, folder: Path, name: str, *more: str) -> str:
    """*more*: further sources, and what the linker is told."""
    library = folder / f"lib{name}.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-std=gnu11", "-fPIC", "-shared", f"{name}.c", *more, "-o", str(library)],
        cwd=repository / "native" / "tests",
        check=True,
        timeout=60,
    )
    return str(library)


@pytest.fixture(scope="session")
def fake_verbs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A libibverbs that needs no hardware; FAKE_VERBS in the environment says what goes wrong."""
    folder = tmp_path_factory.mktemp("verbs")
    version_script = "-Wl,--version-script=fake_verbs.map"
    return _built(repository, folder, "fake_verbs", "fake_rdma.c", "fake_queue.c", version_script)


@pytest.fixture(scope="session")
def fake_crypto(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A libcrypto that computes wrongly; FAKE_CRYPTO in the environment says what."""
    return _built(repository, tmp_path_factory.mktemp("crypto"), "fake_crypto", "-ldl")

"""`make run` starts the node as a person expects, or says what is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

NODE = """#!/bin/sh
# Stands where the virtual environment's interpreter would, and shows how it was called.
trap 'echo stopped in order; exit 0' TERM INT
for argument in "$@"; do echo "argument: $argument"; done
case "$*" in *--fail*) exit 78 ;; *--wait*) ;; *) exit 0 ;; esac
echo waiting > started
while :; do sleep 0.05; done
"""


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """A directory with a space in its name that holds what make looks at."""
    folder = tmp_path / "nova cron"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "setup.py", "requirements.lock"):
        shutil.copy(repository / name, folder)
    return folder


@pytest.fixture
def installed(checkout: Path) -> Path:
    """The same, where everything was installed before."""
    interpreter = checkout / ".venv/bin/python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(NODE)
    interpreter.chmod(0o755)
    for stamp in ("python", "runtime", "package", "bytecode"):
        path = checkout / f".venv/.stamp-{stamp}"
        path.touch()
    return checkout


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _environment() -> dict[str, str]:
    """Without what a make that runs these tests hands down to its children."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "ARGS", "CC"}
    }


def interpreter(folder: Path, script: str) -> str:
    path = folder / "some python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_second_run_prints_only_what_the_node_prints(installed: Path) -> None:
    done = make(installed, "run", "ARGS=--config 'my file.yaml'")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "argument: -m",
        "argument: novacron.boot",
        "argument: --config",
        "argument: my file.yaml",
    ]


def test_a_node_that_fails_makes_make_fail_and_say_its_exit_code(installed: Path) -> None:
    done = make(installed, "run", "ARGS=--fail")
    assert done.returncode == 2
    assert "Error 78" in done.stderr


def wait_started(folder: Path, process: subprocess.Popen[str]) -> None:
    while not (folder / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.fixture
def waiting(installed: Path) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["make", "run", "ARGS=--wait"],
            cwd=installed,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_started(installed, process)
        return process

    return start


def test_make_succeeds_when_the_node_is_told_to_stop(
    waiting: Callable[[], subprocess.Popen[str]],
) -> None:
    process = waiting()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1, "the node is make's own child"
    os.kill(int(children[0]), signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped in order" in output
    assert errors == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_in_order_before_make_ends(
    waiting: Callable[[], subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = waiting()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what a terminal does at Ctrl-C
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert "stopped in order" in output


def test_an_old_python_is_refused_by_name(checkout: Path) -> None:
    old = interpreter(checkout, 'case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac')
    done = make(checkout, "run", f"PYTHON={old}")
    assert done.returncode == 2
    assert "is Python 3.9.2, but Python 3.11 or newer is needed" in done.stderr
    assert "make run PYTHON=python3.12" in done.stderr


def test_a_missing_python_is_said(checkout: Path) -> None:
    done = make(checkout, "run", "PYTHON=python3.99")
    assert done.returncode == 2
    assert "there is no python3.99 here" in done.stderr


def test_a_python_without_venv_names_the_package_to_install(checkout: Path) -> None:
    bare = interpreter(checkout, 'case "$*" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac')
    done = make(checkout, "run", f"PYTHON={bare}")
    assert done.returncode == 2
    assert "apt install python3-venv" in done.stderr


def test_a_missing_compiler_is_said_before_anything_is_built(installed: Path) -> None:
    (installed / ".venv/.stamp-package").unlink()
    done = make(installed, "run", CC="no-such-compiler")
    assert done.returncode == 2
    assert "there is no C compiler (no-such-compiler)" in done.stderr
    assert "apt install gcc" in done.stderr


def test_missing_python_headers_name_the_package_to_install(installed: Path) -> None:
    (installed / ".venv/.stamp-package").unlink()
    (installed / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    done = make(installed, "run", CC="true")
    assert done.returncode == 2
    assert "apt install python3-dev" in done.stderr


def test_changed_pins_are_installed_at_the_next_run(installed: Path) -> None:
    stamp = installed / ".venv/.stamp-runtime"
    os.utime(installed / "requirements.lock", (2e9, 2e9))
    os.utime(stamp, (1e9, 1e9))
    done = make(installed, "--dry-run", "run")
    assert "--require-hashes -r requirements.lock" in done.stdout


def test_an_environment_whose_python_is_gone_is_made_anew(installed: Path) -> None:
    (installed / ".venv/bin/python").unlink()
    (installed / ".venv/bin/python").symlink_to("/usr/bin/python-of-yesterday")
    done = make(installed, "--dry-run", "run")
    assert "-m venv --clear .venv" in done.stdout
    assert "--require-hashes -r requirements.lock" in done.stdout
    assert "--editable ." in done.stdout


def test_make_alone_lists_the_targets(checkout: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0
    assert "make run" in done.stdout
    assert "make test" in done.stdout

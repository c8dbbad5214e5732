"""A private hardware module in software: SoftHSM, from Debian's package, with a token of its own.

    with SoftHsm() as hsm:
        os.environ.update(hsm.environment)
        load(hsm.module)

The module is a shared library and no process: :meth:`SoftHsm.remove` stands for pulling the hardware
out, and :meth:`SoftHsm.insert` for putting it back. Everything here blocks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.harness import BenchError
from bench.processes import program

_DEADLINE = 30.0
_MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"),
    Path("/usr/local/lib/softhsm/libsofthsm2.so"),
)


def module() -> Path:
    """Where the shared library is.

    Raises:
      BenchError: it is not installed.
    """
    for path in _MODULES:
        if path.exists():
            return path
    raise BenchError("libsofthsm2.so is not installed (Debian: apt-get install softhsm2)")


class SoftHsm:
    """A token as a context manager.

    Args:
      label: of the token.
      directory: where to lie instead of a temporary directory; it stays then.
    """

    def __init__(self, label: str = "novacron", *, directory: Path | None = None) -> None:
        self.module = module()
        self.label = label
        self.pin = "user-pin-of-the-tests"
        self.so_pin = "officers-pin-of-the-tests"
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="novacron-softhsm-"))
        self._configuration = self.directory / "softhsm2.conf"
        self.pin_file = self.directory / "pin"
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        tokens = self.directory / "tokens"
        tokens.mkdir()
        self._configuration.write_text(
            f"directories.tokendir = {tokens}\n"
            "objectstore.backend = file\n"
            "log.level = ERROR\n"
            "slots.removable = false\n"
        )
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(f"{self.pin}\n")
        self.add(self.label)

    def add(self, label: str) -> None:
        """Initialise one more token, with the same PINs."""
        self._run("--init-token", "--free", "--label", label, *self._pins())

    def _pins(self) -> tuple[str, ...]:
        return ("--pin", self.pin, "--so-pin", self.so_pin)

    def _run(self, *arguments: str) -> None:
        result = subprocess.run(
            [program("softhsm2-util", "softhsm2"), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
        if result.returncode:
            raise BenchError(f"softhsm2-util failed: {result.stdout}{result.stderr}")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find this token."""
        return {"SOFTHSM2_CONF": str(self._configuration)}

    @property
    def reference(self) -> str:
        """A master key in it."""
        return f"pkcs11:token={self.label};object=master"

    @property
    def settings(self) -> dict[str, str]:
        """The section ``security`` of a node that uses it, but for the master key itself."""
        return {"pkcs11_module": str(self.module), "pkcs11_pin": f"file:{self.pin_file}"}

    def remove(self) -> None:
        """No process that looks from now on finds a token."""
        (self.directory / "tokens").rename(self.directory / "removed")
        (self.directory / "tokens").mkdir()

    def insert(self) -> None:
        """The token is back, with what was in it."""
        (self.directory / "tokens").rmdir()
        (self.directory / "removed").rename(self.directory / "tokens")

    def close(self) -> None:
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

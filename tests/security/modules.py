"""Hardware modules of the tests: SoftHSM, and SoftHSM with a fault."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers.softhsm import SoftHsm
from novacron.security.key_module import KeyModule
from novacron.security.module_options import ModuleOptions
from novacron.security.module_uri import parse

_SOURCE = Path(__file__).with_name("faulty_module.c")


class Bench:
    """A token with a master key in it, and the node's side of it."""

    def __init__(self, root: Path, hsm: SoftHsm) -> None:
        self.root = root
        self.hsm = hsm
        self.environ = {**os.environ, **hsm.environment}
        self.module = str(hsm.module)
        self.pin = f"file:{hsm.pin_file}"
        self.timeout = 20.0
        self.refusals = root / "pin-refused.json"
        self.count = root / "count"
        self.key().generate()

    def options(self, *, insist: bool = False) -> ModuleOptions:
        return ModuleOptions(
            self.module, self.pin, self.timeout, refusals=self.refusals, insist=insist
        )

    def key(self, reference: str | None = None, *, insist: bool = False) -> KeyModule:
        uri = parse(reference or self.hsm.reference)
        return KeyModule(uri, self.options(insist=insist), self.environ)

    def break_it(self, fault: str) -> None:
        """Have the module do *fault* from now on; see faulty_module.c."""
        module = self.root / "faulty.so"
        if not module.exists():
            compiler = os.environ.get("CC", "cc")
            flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
            command = [compiler, *flags, "-o", str(module), str(_SOURCE), "-ldl"]
            subprocess.run(command, check=True, timeout=60)
        self.module = str(module)
        self.environ["NOVACRON_TEST_MODULE"] = str(self.hsm.module)
        self.environ["NOVACRON_TEST_FAULT"] = fault
        self.environ["NOVACRON_TEST_COUNT"] = str(self.count)

    def times(self) -> int:
        """How often the faulty module was logged in to, or has counted otherwise."""
        return self.count.stat().st_size if self.count.exists() else 0


@contextmanager
def bench(root: Path) -> Iterator[Bench]:
    with SoftHsm() as hsm:
        yield Bench(root, hsm)

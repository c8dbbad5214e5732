"""What importing costs everybody, held by name: a heavy module must not slip in unseen."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"psutil", "subprocess", "uuid", "_cffi_backend", "asyncio", "novacron._native._nc"}

PROGRAM = """
import sys
import trio, novacron.config
before = set(sys.modules)
import novacron.environment
print(*sorted(set(sys.modules) - before))
"""


def test_importing_the_components_loads_nothing_heavy() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(answer.stdout.split())
    assert "novacron.environment.probes.cgroup" in loaded
    assert not loaded & HEAVY
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"novacron"}

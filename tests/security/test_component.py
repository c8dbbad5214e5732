"""The security component as a boot meets it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import trio

from novacron.component import HealthDepth, HealthState
from novacron.security import Role
from tests.security.stand_ins import make_security, tree

DEADLINE = 20.0


async def test_first_boot_makes_everything_and_a_warm_boot_changes_no_key(tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        security, node = make_security(tmp_path)
        async with trio.open_nursery() as nursery:
            await security.initialize(nursery)
            assert (await security.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
            await security.shutdown()
            nursery.cancel_scope.cancel()
        before = tree(tmp_path)
        again, _ = make_security(tmp_path)
        async with trio.open_nursery() as nursery:
            await again.initialize(nursery)
            await again.shutdown()
            nursery.cancel_scope.cancel()
        after = tree(tmp_path)
    assert node.said == []
    moving = {"secrets/audit.head", "secrets/clock.json", "audit/audit-000000000001.jsonl"}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= moving
    for name in before:
        mode = stat.S_IMODE((tmp_path / name).stat().st_mode)
        assert mode == (0o644 if name == "pki/ca.pem" else 0o600), name
    secret = before["secrets/admin.token"].decode().strip()
    principal = again.tokens.authenticate(secret)
    assert principal is not None
    assert principal.role is Role.ADMIN


async def test_boot_and_stop_are_in_the_audit_log(tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        security, _ = make_security(tmp_path)
        async with trio.open_nursery() as nursery:
            await security.initialize(nursery)
            await security.shutdown()
            nursery.cancel_scope.cancel()
    verification = security.audit.verify()
    assert verification.ok, [str(problem) for problem in verification.problems]
    assert verification.records == 2


WARM = """
import sys, trio
from pathlib import Path
from tests.security.stand_ins import make_security

async def main():
    security, _ = make_security(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await security.initialize(nursery)
        security.certificates.server_context()
        loaded = sorted(name for name in sys.modules if name.startswith("cryptography"))
        await security.shutdown()
        nursery.cancel_scope.cancel()
    print(loaded)

trio.run(main)
"""


def test_a_warm_boot_imports_no_cryptography(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", WARM, str(tmp_path)]
    first = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    assert first.returncode == 0, first.stderr
    assert "cryptography.x509" in first.stdout
    warm = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    assert warm.returncode == 0, warm.stderr
    assert warm.stdout.strip() == "[]"

"""Files that can no longer be looked at while the node runs, as after a chown or chmod by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from novacron.security import component as module
from novacron.security.errors import StorageFailedError
from novacron.security.keyring import Keyring
from novacron.security.revocations import Revocations
from novacron.security.tokens import Tokens
from tests.security.stand_ins import make_security, prepared


def hide(path: Path) -> None:
    """Root is kept from nothing by a mode; nobody can follow a link to itself."""
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def test_what_was_read_before_stays_in_use(tmp_path: Path) -> None:
    directory = prepared(tmp_path)
    ring, tokens = Keyring(directory), Tokens(directory)
    ring.open()
    tokens.open_blocking()
    secret = tokens.create_blocking("ci", "viewer").secret
    sealed = ring.encrypt(b"x", b"c")
    for path in (tokens.path, ring.path):
        hide(path)
    assert tokens.authenticate(secret) is not None
    assert ring.decrypt(sealed, b"c") == b"x"
    assert ring.decrypt(ring.encrypt(b"y", b"c"), b"c") == b"y"
    # A boot says why, and makes nothing new in its place.
    with pytest.raises(StorageFailedError, match="cannot read"):
        Keyring(directory).open()
    with pytest.raises(StorageFailedError, match="cannot read"):
        Tokens(directory).open_blocking()


def test_a_list_of_revoked_certificates_is_reported_and_not_forgotten(tmp_path: Path) -> None:
    mine = Revocations(prepared(tmp_path))
    mine.open_blocking((), tuple)
    hide(mine.path)
    assert mine.changed_on_disk
    with pytest.raises(StorageFailedError, match="cannot read"):
        mine.refresh_blocking()


async def test_the_upkeep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_INTERVAL", 0.01)
    security, _ = make_security(tmp_path)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await security.initialize(nursery)
            await security._boot_recorded.wait()
            await wait_all_tasks_blocked()
            hide(security.certificates.material.certificate)
            # The node's own authority issues another one.
            while security.certificates.material.certificate.is_symlink():
                await trio.sleep(0.01)
            await security.shutdown()

"""No secret gets out: not in an error, not in a log, not in a repr, not in the audit log."""

from __future__ import annotations

import base64
import io
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from novacron.log.redaction import mask
from novacron.security import Security
from tests.security.issuing import OutsideAuthority, key_pem, pem, write_private
from tests.security.stand_ins import make_security, tree


def planted(root: Path, security: Security) -> dict[str, list[str]]:
    """Every secret a booted node has, in the spellings it could leak in."""
    raw = (root / "secrets" / "master.key").read_bytes().strip()
    token = (root / "secrets" / "admin.token").read_text().strip()
    node_key = (root / "pki" / "node.pem").read_text().partition("-----BEGIN CERT")[0]
    sealed = security.keyring.encrypt(b"planted-plaintext-55aa", b"c")
    key = next(iter(security.keyring._keys.values()))
    data_key = security.keyring._opened().unwrap(key.wrapped, key.context())
    assert security.keyring.decrypt(sealed, b"c") == b"planted-plaintext-55aa"
    master = base64.b64decode(raw)
    return {
        "master key": [raw.decode(), master.hex(), repr(master)[2:-1]],
        "data key": [base64.b64encode(data_key).decode(), data_key.hex(), repr(data_key)[2:-1]],
        "token": [token, token.split("_", 2)[2]],
        "node key": [line for line in node_key.splitlines() if len(line) > 20 and "-" not in line],
        "plaintext": ["planted-plaintext-55aa"],
    }


def damages(root: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    secrets, pki = root / "secrets", root / "pki"
    master = (secrets / "master.key").read_bytes()
    yield "short master key", lambda: (secrets / "master.key").write_bytes(master[:20])
    yield "long master key", lambda: (secrets / "master.key").write_bytes(master.strip() * 2)
    yield "readable master key", lambda: (secrets / "master.key").chmod(0o644)
    yield "lost master key", lambda: (secrets / "master.key").unlink()
    yield "keyring", lambda: (secrets / "keyring.json").write_bytes(b"{")
    yield "ca", lambda: (pki / "ca.pem").write_bytes(master)
    yield "node", lambda: (pki / "node.pem").write_bytes((pki / "node.pem").read_bytes()[:-200])
    yield "tokens", lambda: (secrets / "tokens.json").write_bytes(b"\0")


async def test_no_failure_and_no_repr_shows_a_secret(tmp_path: Path) -> None:
    root = tmp_path / "node"
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    shown: list[str] = []
    failures = 0
    try:
        security, _ = make_security(root)
        async with trio.open_nursery() as nursery:
            await security.initialize(nursery)
            leaks = planted(root, security)
            parts = (security, security.keyring, security.certificates, security.tokens)
            shown += [repr(part) for part in parts]
            shown += [repr(vars(security)), repr(security.statistics())]
            shown += [repr(security.keyring._keys), repr(security.keyring._ring)]
            await security.shutdown()
            nursery.cancel_scope.cancel()
        good = tree(root)
        for _, damage in damages(root):
            damage()
            broken, node = make_security(root)
            try:
                broken._open("0b0f6a5e-3c56-4d1c-9f0e-2f6a3f3d7c11")
            except Exception as exc:
                failures += 1
                shown += traceback.format_exception(exc)
                shown.append(repr(vars(exc)))
            finally:
                broken.audit.close_blocking()
            shown += node.said
            for name, data in good.items():
                (root / name).write_bytes(data)
                (root / name).chmod(0o644 if name == "pki/ca.pem" else 0o600)
    finally:
        logging.getLogger().removeHandler(handler)
    assert failures >= 5
    text = "\n".join([*shown, stream.getvalue()])
    audit = b"".join(data for name, data in tree(root).items() if name.startswith("audit/"))
    for kind, spellings in leaks.items():
        assert spellings
        for spelling in spellings:
            assert spelling not in text, kind
            assert spelling.encode() not in audit, kind


async def test_what_a_boot_has_read_or_made_is_masked_in_any_text(tmp_path: Path) -> None:
    security, _ = make_security(tmp_path)
    async with trio.open_nursery() as nursery:
        await security.initialize(nursery)
        leaks = planted(tmp_path, security)
        await security.shutdown()
        nursery.cancel_scope.cancel()
    for kind in ("master key", "token", "node key"):
        spelling = leaks[kind][0]
        assert spelling not in mask(f"somebody logs {spelling} here"), kind


async def test_a_private_key_from_outside_is_shown_by_no_failure(tmp_path: Path) -> None:
    root = OutsideAuthority()
    certificate, key = root.issue(["urn:novacron:node:somebody-else"])
    secret = key_pem(key).decode()
    write_private(tmp_path / "node.key", secret.encode().replace(b"PRIVATE", b"PRIVAT"))
    files = {
        "certificate": str(write_private(tmp_path / "node.pem", pem(certificate))),
        "ca_certificate": str(write_private(tmp_path / "ca.pem", pem(root.certificate))),
        "private_key": f"file:{tmp_path / 'node.key'}",
    }
    for content in (secret[:80], secret, secret * 2, secret.replace("KEY", "KEX")):
        write_private(tmp_path / "node.key", content.encode())
        security, _ = make_security(tmp_path / "data", **files)
        with pytest.raises(Exception, match="cannot") as caught:
            security._open("0b0f6a5e-3c56-4d1c-9f0e-2f6a3f3d7c11")
        text = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
        for line in secret.splitlines()[1:-1]:
            assert line not in text

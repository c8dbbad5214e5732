"""The keyring's file as the first release wrote it: data keys directly under the master key."""

from __future__ import annotations

import base64
from pathlib import Path

from novacron.security import documents, keyring_file
from novacron.security.keyring import Keyring
from novacron.security.ring_key import RingKey
from tests.security.stand_ins import prepared


def write_version_1(root: Path) -> None:
    """Put the keyring below *root* back to version 1, under the key in ``secrets/master.key``."""
    directory = prepared(root)
    path = directory.secrets / "keyring.json"
    master = RingKey(base64.b64decode((directory.secrets / "master.key").read_bytes()))
    present = keyring_file.read(path)
    if not present.slots:
        return
    now = Keyring(directory)
    now.open(create=False)
    keys = [key.rewrapped(now._opened(), master).document() for key in now._keys.values()]
    body = {"version": 1, "active": present.active, "check": master.check, "keys": keys}
    body["mac"] = master.authenticate(documents.canonical(body))
    path.write_bytes(documents.encode(body))

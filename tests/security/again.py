"""A node's certificates opened once more, in a process that must not need cryptography for it."""

from __future__ import annotations

from pathlib import Path

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security.certificates import Certificates
from novacron.security.keyring import Keyring
from tests.security.stand_ins import NODE_ID


def again(root: Path) -> tuple[str, ...]:
    """The hashes of the authorities that the node on *root* trusts."""
    directory = DataDirectory(root)
    keyring = Keyring(directory)
    keyring.open()
    certificates = Certificates(directory, SecuritySettings(), keyring, ("localhost", "127.0.0.1"))
    certificates.open(NODE_ID)
    return certificates.authority_hashes()

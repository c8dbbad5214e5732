"""The contract of secret providers on all four."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.servers.softhsm import SoftHsm
from novacron.security.module_options import ModuleOptions
from novacron.security.providers import provider_for
from novacron.security.references import read_secret
from tests.contracts.check_secrets import CASES, Case, Vault, names


def fresh() -> bytes:
    return base64.b64encode(os.urandom(32))


def private(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


class FileVault(Vault):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.paths = [root / "first.key", root / "second.key"]
        for path in self.paths:
            private(path, fresh())
        self.first, self.second = (f"file:{path}" for path in self.paths)

    def take_away(self) -> None:
        self.paths[0].rename(self.root / "away")

    def give_back(self) -> None:
        (self.root / "away").rename(self.paths[0])

    def secrets(self) -> list[bytes]:
        return [path.read_bytes().strip() for path in self.paths if path.exists()]

    def replace(self, secret: bytes) -> None:
        private(self.paths[0], secret + b"\n")

    def free_reference(self) -> str:
        return f"file:{self.root / 'made.key'}"


class EnvironmentVault(Vault):
    first, second = "env:FIRST_KEY", "env:SECOND_KEY"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.environ |= {"FIRST_KEY": fresh().decode(), "SECOND_KEY": fresh().decode()}
        self.kept = ""

    def take_away(self) -> None:
        self.kept = self.environ.pop("FIRST_KEY")

    def give_back(self) -> None:
        self.environ["FIRST_KEY"] = self.kept

    def secrets(self) -> list[bytes]:
        return [value.encode() for value in self.environ.values()]

    def replace(self, secret: bytes) -> None:
        self.environ["FIRST_KEY"] = secret.decode()


class CredentialVault(FileVault):
    """The directory as systemd lays it: mode 0500, files 0400 (systemd.exec(5), LoadCredential)."""

    def __init__(self, root: Path) -> None:
        Vault.__init__(self, root)
        self.credentials = root / "credentials"
        self.credentials.mkdir()
        self.paths = [self.credentials / "first-key", self.credentials / "second-key"]
        for path in self.paths:
            private(path, fresh(), 0o400)
        self.credentials.chmod(0o500)
        self.environ["CREDENTIALS_DIRECTORY"] = str(self.credentials)
        self.first, self.second = "credential:first-key", "credential:second-key"

    def take_away(self) -> None:
        self.credentials.chmod(0o700)
        super().take_away()

    def replace(self, secret: bytes) -> None:
        self.credentials.chmod(0o700)
        private(self.paths[0], secret, 0o400)

    def free_reference(self) -> None:  # type: ignore[override]
        return None


class ModuleVault(Vault):
    hands_out = False

    def __init__(self, root: Path, hsm: SoftHsm) -> None:
        super().__init__(root)
        self.hsm = hsm
        self.environ |= hsm.environment
        self.options = ModuleOptions(
            hsm.settings["pkcs11_module"],
            hsm.settings["pkcs11_pin"],
            refusals=root / "pin-refused.json",
        )
        self.first, self.second = (f"pkcs11:token={hsm.label};object={n}" for n in ("one", "two"))
        for reference in (self.first, self.second):
            provider_for(reference, self.options, self.environ).make_master_key(reference)

    def take_away(self) -> None:
        self.hsm.remove()

    def give_back(self) -> None:
        self.hsm.insert()

    def secrets(self) -> list[bytes]:
        return [self.hsm.pin.encode()]

    def free_reference(self) -> str:
        return f"pkcs11:token={self.hsm.label};object=three"


def module_vault(root: Path, stack: ExitStack) -> Vault:
    return ModuleVault(root, stack.enter_context(SoftHsm()))


VAULTS: dict[str, Callable[[Path, ExitStack], Vault]] = {
    "file": lambda root, stack: FileVault(root),
    "env": lambda root, stack: EnvironmentVault(root),
    "credential": lambda root, stack: CredentialVault(root),
    "pkcs11": module_vault,
}


@pytest.fixture(params=list(VAULTS))
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    with ExitStack() as stack:
        yield VAULTS[request.param](tmp_path, stack)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_a_provider(vault: Vault, case: Case) -> None:
    case(vault)


def test_a_credential_that_systemd_sealed_and_unsealed_is_the_key(tmp_path: Path) -> None:
    """With systemd's own program, as LoadCredentialEncrypted= does it. Not with the host's key or
    a TPM: neither is a test's to make or to use."""
    key = fresh()
    sealed = tmp_path / "master.cred"
    name = "--name=novacron-master"
    seal = ["systemd-creds", "encrypt", "--with-key=tpm2-absent", name, "-", str(sealed)]
    subprocess.run(seal, input=key, check=True, capture_output=True, timeout=30)
    assert key not in sealed.read_bytes()
    directory = tmp_path / "credentials"
    directory.mkdir()
    unseal = ["systemd-creds", "decrypt", name, str(sealed), str(directory / "novacron-master")]
    subprocess.run(unseal, check=True, capture_output=True, timeout=30)
    environ = {"CREDENTIALS_DIRECTORY": str(directory)}
    reference = "credential:novacron-master"
    assert read_secret(reference, key="security.master_key", environ=environ).strip() == key
    assert provider_for(reference, None, environ).open_master_key(reference).kind == "local"

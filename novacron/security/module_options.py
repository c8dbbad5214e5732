"""How hardware modules are reached; apart from what does it, which a boot without one leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from novacron.config.schema import SecuritySettings
    from novacron.data_directory import DataDirectory


class ModuleOptions:
    """How to reach modules: the settings ``security.pkcs11_*``."""

    __slots__ = ("insist", "module", "pin", "refusals", "timeout")

    def __init__(
        self,
        module: str | None = None,
        pin: str | None = None,
        timeout: float = 10.0,
        *,
        refusals: Path | None = None,
        insist: bool = False,
    ) -> None:
        """
        Args:
          module: Path of the shared library.
          pin: Reference to the user PIN.
          timeout: Seconds one request may take.
          refusals: Where to note that a token has refused the PIN. None notes nothing.
          insist: Try a PIN that was refused before: a person is asking.
        """
        self.module = module
        self.pin = pin
        self.timeout = timeout
        self.refusals = refusals
        self.insist = insist

    @classmethod
    def of(
        cls, settings: SecuritySettings, directory: DataDirectory, *, insist: bool = False
    ) -> Self:
        """What the settings of the node with that *directory* say."""
        return cls(
            settings.pkcs11_module,
            settings.pkcs11_pin,
            settings.pkcs11_timeout,
            refusals=directory.secrets / "pin-refused.json",
            insist=insist,
        )

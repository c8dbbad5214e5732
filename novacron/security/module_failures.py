"""What the process of a hardware module reports, as errors an operator can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from novacron.errors import NovaCronError
from novacron.security.errors import KeyModuleAwayError, KeyModuleError

Answer = Mapping[str, Any]

_RUNBOOK = "see the runbook hsm-away"
_AGAIN = frozenset(
    {
        "CryptokiNotInitialized",
        "DeviceError",
        "DeviceRemoved",
        "FunctionFailed",
        "GeneralError",
        "SessionClosed",
        "SessionHandleInvalid",
        "TokenNotPresent",
        "UserNotLoggedIn",
    }
)
"""What a module says whose hardware was restarted meanwhile, or has just come back."""


def worth_repeating(answer: Answer) -> bool:
    """Whether the same request may succeed in a new session. Never one that a PIN was refused in:
    a token counts those and locks itself."""
    kind = answer.get("failed")
    return kind == "token-absent" or (kind == "error" and answer.get("error") in _AGAIN)


def failure(answer: Answer, module: str, reference: str) -> NovaCronError:
    """The error that *answer* means for the key *reference* in the *module*."""
    kind = str(answer["failed"])
    group = _PIN if kind.startswith("pin-") else _KEY if kind.startswith("key-") else _MODULE
    return group(kind, answer, module, reference)


def _module_failure(kind: str, answer: Answer, module: str, reference: str) -> NovaCronError:
    detail = str(answer.get("detail") or answer.get("error") or "it does not say why")
    if kind == "binding":
        return KeyModuleError(
            "cannot use hardware modules",
            why=f"the package python-pkcs11 cannot be imported ({detail})",
            remedy="install the dependencies again (make install)",
            key="security.master_key",
        )
    if kind == "load":
        return KeyModuleError(
            f"cannot load the PKCS#11 module {module}",
            why=detail,
            remedy="name the vendor's shared library, for this processor and C library, and install "
            "what it depends on (ldd)",
            key="security.pkcs11_module",
        )
    if kind == "initialize":
        return KeyModuleAwayError(
            f"cannot start the PKCS#11 module {module}",
            why=detail,
            remedy="look at the module's own configuration and environment variables, and whether "
            f"its device or server answers; {_RUNBOOK}",
            key="security.pkcs11_module",
        )
    if kind == "token-absent":
        seen = ", ".join(map(repr, answer.get("seen", ()))) or "none"
        return KeyModuleAwayError(
            f"cannot find the token of {reference}",
            why=f"the module {module} shows these tokens: {seen}",
            remedy=f"connect or start it, or correct the reference; {_RUNBOOK}",
            key="security.master_key",
        )
    if kind == "token-ambiguous":
        return KeyModuleError(
            f"cannot tell which token {reference} means",
            why="several match",
            remedy="add serial=, model= or slot-id= to the reference",
            key="security.master_key",
        )
    if kind == "mechanism":
        return KeyModuleError(
            f"cannot use the key {reference}",
            why=f"the module does not {answer.get('operation', 'work')} with AES-GCM and an "
            f"initialisation vector of the caller's ({answer.get('error')})",
            remedy="use a key that may encrypt and decrypt, in a token that offers CKM_AES_GCM that "
            "way; some in FIPS mode do not",
            key="security.master_key",
        )
    return KeyModuleAwayError(
        f"cannot use the PKCS#11 module {module}",
        why=f"it failed with {answer.get('error') or detail}, also when it was tried again",
        remedy=f"look at the module's log and its device; {_RUNBOOK}",
        key="security.pkcs11_module",
    )


def _pin_failure(kind: str, answer: Answer, module: str, reference: str) -> NovaCronError:
    token = f"{answer.get('label')} (serial {answer.get('serial')})"
    if kind == "pin-needed":
        return KeyModuleError(
            f"cannot log in to the token {token}",
            why="it wants a PIN, and none is configured",
            remedy="put the PIN into a file with mode 0600 and set security.pkcs11_pin to "
            "file:PATH, or pass it as a systemd credential",
            key="security.pkcs11_pin",
        )
    if kind == "pin-locked":
        return KeyModuleError(
            f"cannot log in to the token {token}",
            why="its PIN is locked after too many wrong ones; it was not tried",
            remedy="have the security officer set it anew (C_InitPIN; the vendor's tool, or "
            "pkcs11-tool --init-pin), then set security.pkcs11_pin",
            key="security.pkcs11_pin",
        )
    if kind == "pin-final-try":
        return KeyModuleError(
            f"refusing to log in to the token {token}",
            why="one more wrong PIN locks it, and this attempt is not risked",
            remedy="log in once with the vendor's tool or pkcs11-tool --login, which resets the "
            "count, and correct security.pkcs11_pin",
            key="security.pkcs11_pin",
        )
    if kind == "pin-known-wrong":
        return KeyModuleError(
            f"refusing to log in to the token {token}",
            why="it has refused this PIN before, and counts: trying it at every start would lock it",
            remedy="correct the PIN that security.pkcs11_pin refers to; if it is right by now, run "
            "`novacron keys status`, which tries it once",
            key="security.pkcs11_pin",
        )
    if kind == "pin-wrong":
        return KeyModuleError(
            f"cannot log in to the token {token}",
            why="it refused the PIN; it is not tried again, since a token locks after a few",
            remedy="correct the PIN that security.pkcs11_pin refers to",
            key="security.pkcs11_pin",
        )
    return KeyModuleError(
        f"cannot log in to the token {token}",
        why="its PIN has expired" if kind == "pin-expired" else "its user PIN was never set",
        remedy="have the security officer set one (the vendor's tool, or pkcs11-tool --init-pin)",
        key="security.pkcs11_pin",
    )


def _key_failure(kind: str, answer: Answer, module: str, reference: str) -> NovaCronError:
    if kind == "key-absent":
        return KeyModuleError(
            f"cannot find the key {reference}",
            why="the token has no secret key of that label and id which this PIN may see",
            remedy="correct the reference; for a node that has never booted, or to go over to it with "
            "`novacron keys rotate --master --to`, make the key with "
            f"`novacron keys init --to '{reference}'`",
            key="security.master_key",
        )
    if kind == "key-ambiguous":
        return KeyModuleError(
            f"cannot tell which key {reference} means",
            why="several match",
            remedy="add id= to the reference, or remove those that are of no use",
            key="security.master_key",
        )
    if kind == "key-exists":
        return KeyModuleError(
            f"refusing to make the key {reference}",
            why="the token has one of that name, and what it has sealed would be lost with it",
            remedy="use it as it is, or choose another label",
            key="security.master_key",
        )
    if kind == "key-readable":
        return KeyModuleError(
            f"refusing the key {reference}",
            why="the module gives its value out in the clear (CKA_SENSITIVE is false)",
            remedy="make one that stays inside with `novacron keys init --to pkcs11:…`",
            key="security.master_key",
        )
    return KeyModuleError(
        f"cannot use the key {reference}",
        why=f"it is no AES key of 256 bits (bits: {answer.get('bits')})",
        remedy="make one with `novacron keys init --to pkcs11:…`",
        key="security.master_key",
    )


_Group = Callable[[str, Answer, str, str], NovaCronError]
_MODULE: _Group = _module_failure
_PIN: _Group = _pin_failure
_KEY: _Group = _key_failure

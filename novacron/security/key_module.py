"""PKCS#11 modules, each request in a process of its own.

A vendor's shared library inside the node could hang a thread that nothing can end, crash the node,
or start threads and handlers of its own; the binding holds the interpreter's lock while it loads and
ends a library. A process is ended after its deadline, and a new one is a new session: hardware that
was restarted is no case of its own. It costs some 75 ms, at a boot and at a rotation and never
between (ADR 0124).

Everything here blocks, for no longer than twice the deadline: call it in a worker thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from novacron.durable import remove_durably, write_durably
from novacron.log.redaction import mask
from novacron.security import documents
from novacron.security.errors import (
    KeyModuleAwayError,
    KeyModuleError,
    SecretReferenceError,
    storage_failure,
)
from novacron.security.module_failures import failure, worth_repeating
from novacron.security.module_options import ModuleOptions
from novacron.security.module_uri import KeyUri
from novacron.security.references import environment_of_children, read_secret

_PROGRAM = Path(__file__).with_name("module_process.py")
_GRACE = 1.0
"""Seconds after which a process that was killed is no longer waited for: its driver hangs in the
kernel, and it goes when that lets go of it."""
_PAUSES = (0.05, 0.2)
"""Seconds before a request is repeated. Hardware that was restarted needs a new session and no time;
SoftHSM shows no token for a moment while another process logs in to it."""
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}
"""50 ms and 16 MiB, the parameters of RFC 7914's third test vector: paid only where a PIN was
refused."""

_MOST_NOTED = 4
"""Tokens whose refusal is remembered: each costs a boot the digest above, and a node has one token, or
two while the master key is replaced."""

_abandoned: list[subprocess.Popen[bytes]] = []
"""Processes that could not be ended. Kept, since dropping one that runs is a warning."""

Operation = Mapping[str, Any]


class KeyModule:
    """One key in one module."""

    def __init__(
        self, uri: KeyUri, options: ModuleOptions, environ: Mapping[str, str] | None = None
    ) -> None:
        self.uri = uri
        self._options = options
        self._environ = environ

    def __repr__(self) -> str:
        return f"KeyModule({self.uri})"

    def encrypt(self, data: bytes, context: str) -> bytes:
        """*data* sealed with AES-256-GCM inside the module: nonce (12), ciphertext and tag (16).

        Raises:
          KeyModuleError: module, token, PIN or key cannot be used as configured.
          KeyModuleAwayError: the module does not answer.
          SecretReferenceError: the PIN cannot be read.
        """
        encoded = base64.b64encode(data).decode()
        (sealed,) = self._ask([{"do": "encrypt", "data": encoded, "context": context}])
        return base64.b64decode(sealed)

    def decrypt(self, sealed: Sequence[bytes], context: str) -> list[bytes | None]:
        """What each of *sealed* holds, None for what this key has not sealed. Raises like
        :meth:`encrypt`."""
        wanted = [
            {"do": "decrypt", "data": base64.b64encode(one).decode(), "context": context}
            for one in sealed
        ]
        return [None if one is None else base64.b64decode(one) for one in self._ask(wanted)]

    def describe(self) -> dict[str, Any]:
        """Token and key as the module shows them; nothing secret. Raises like :meth:`encrypt`."""
        (found,) = self._ask([{"do": "describe"}])
        return dict(found)

    def generate(self) -> dict[str, Any]:
        """Make the key inside the module, never to leave it. Raises like :meth:`encrypt`."""
        (made,) = self._ask([{"do": "generate"}], write=True)
        return dict(made)

    # --- One request ----------------------------------------------------------------------------

    def _ask(self, operations: Sequence[Operation], *, write: bool = False) -> list[Any]:
        options, uri = self._options, self.uri
        module = uri.module_path or options.module
        if not module:
            raise KeyModuleError(
                f"cannot use the key {uri}",
                why="the module it is in is not configured",
                remedy="set security.pkcs11_module to the vendor's shared library, such as "
                "/usr/lib/softhsm/libsofthsm2.so",
                key="security.pkcs11_module",
            )
        pin = self._pin()
        request = {
            "module": module,
            "token": {
                "token": uri.token,
                "manufacturer": uri.manufacturer,
                "serial": uri.serial,
                "model": uri.model,
                "slot-id": uri.slot_id,
            },
            "object": uri.object,
            "id": None if uri.id is None else base64.b64encode(uri.id).decode(),
            "pin": pin,
            "refused": self._refused(pin),
            "write": write,
            "operations": list(operations),
            "path": [entry for entry in sys.path if os.path.isabs(entry)],
            "deadline": options.timeout + _GRACE,
        }
        deadline = time.monotonic() + options.timeout
        answer = self._run(request)
        for pause in _PAUSES:
            # Making a key is not repeated: the first attempt may have made it.
            if write or not worth_repeating(answer) or time.monotonic() >= deadline:
                break
            time.sleep(pause)
            answer = self._run(request)
        if "results" in answer:
            self._forget_refusal(str(answer["serial"]))
            results: list[Any] = answer["results"]
            return results
        if answer["failed"] == "pin-wrong" and pin is not None:
            self._note_refusal(str(answer["serial"]), pin)
        raise failure(answer, module, str(uri))

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        module = request["module"]
        try:
            # In a session of its own: an interrupt of the terminal is the node's to handle.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment_of_children(self._environ),
                start_new_session=True,
            )
        except OSError as exc:
            raise KeyModuleAwayError(
                f"cannot start a process for the PKCS#11 module {module}",
                why=exc.strerror or type(exc).__name__,
                remedy="free memory or processes of this user",
                key="security.pkcs11_module",
            ) from exc
        try:
            output, errors = process.communicate(
                json.dumps(request).encode(), timeout=self._options.timeout
            )
        except subprocess.TimeoutExpired:
            _end(process)
            raise KeyModuleAwayError(
                f"cannot use the PKCS#11 module {module}",
                why=f"it did not answer within {self._options.timeout:g} s; its process was ended",
                remedy="look at its device or server and the network to it; see the runbook "
                "hsm-away",
                key="security.pkcs11_timeout",
            ) from None
        except BaseException:
            _end(process)
            raise
        try:
            answer = json.loads(output)
        except ValueError:
            said = mask(errors.decode("utf-8", "replace").strip().rpartition("\n")[2])
            raise KeyModuleAwayError(
                f"cannot use the PKCS#11 module {module}",
                why=f"its process ended with status {process.returncode} and no answer "
                f"({said or 'it said nothing'})",
                remedy="see the vendor's log, and whether this version of the module is known to "
                "crash; the node itself is not affected",
                key="security.pkcs11_module",
            ) from None
        return dict(answer)

    # --- The PIN --------------------------------------------------------------------------------

    def _pin(self) -> str | None:
        reference = self.uri.pin_source or self._options.pin
        if reference is None:
            return None
        key = "security.pkcs11_pin"
        data = read_secret(reference, key=key, environ=self._environ)
        try:
            return data.strip().decode("utf-8")
        except UnicodeDecodeError:
            raise SecretReferenceError(
                f"cannot use the PIN from {reference}",
                why="it is not text",
                remedy="put the PIN there, and nothing else",
                key=key,
            ) from None

    def _refused(self, pin: str | None) -> list[str]:
        """Serial numbers of tokens that are known to refuse *pin*."""
        if pin is None or self._options.insist:
            return []
        return [
            serial
            for serial, (salt, digest) in self._noted().items()
            if hmac.compare_digest(_stretched(pin, salt), digest)
        ]

    def _noted(self) -> dict[str, tuple[bytes, bytes]]:
        """Salt and digest of the PIN that each token has refused, by its serial number. A token has
        its own: while the master key goes from one to another, both are asked, and what one takes
        says nothing of what the other counts."""
        path = self._options.refusals
        try:
            refused = documents.decode(path.read_bytes())["refused"] if path is not None else {}
            return {
                str(serial): (bytes.fromhex(noted["salt"]), bytes.fromhex(noted["digest"]))
                for serial, noted in refused.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _note_refusal(self, serial: str, pin: str) -> None:
        path = self._options.refusals
        if path is None or not path.parent.is_dir():
            return
        salt = secrets.token_bytes(16)
        others = {one: noted for one, noted in self._noted().items() if one != serial}
        kept = dict(list(others.items())[-(_MOST_NOTED - 1) :])
        self._write_noted(path, {**kept, serial: (salt, _stretched(pin, salt))})

    def _forget_refusal(self, serial: str) -> None:
        path = self._options.refusals
        if path is None or not path.exists():
            return
        noted = self._noted()
        if noted and serial not in noted:
            return
        noted.pop(serial, None)
        if noted:
            self._write_noted(path, noted)
            return
        try:
            remove_durably(path)
        except OSError as exc:
            raise storage_failure("remove", path, exc) from exc

    def _write_noted(self, path: Path, noted: Mapping[str, tuple[bytes, bytes]]) -> None:
        body = {
            serial: {"salt": salt.hex(), "digest": digest.hex()}
            for serial, (salt, digest) in noted.items()
        }
        try:
            write_durably(path, documents.encode({"refused": body}), mode=0o600)
        except OSError as exc:
            raise storage_failure("write", path, exc) from exc


def _stretched(pin: str, salt: bytes) -> bytes:
    # A refused PIN is often the right one with a slip in it: its digest is made slow to guess.
    return hashlib.scrypt(pin.encode(), salt=salt, dklen=32, **_SCRYPT)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    try:
        process.communicate(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        _abandoned.append(process)

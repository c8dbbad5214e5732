"""The process that a PKCS#11 module is loaded into; :mod:`novacron.security.key_module` starts it.

One request comes as JSON on standard input, one answer goes as JSON to standard output, and that is
the process's life. It is started without the site module and imports nothing of this package, so
that it costs little more than its interpreter. Why a process: ADR 0124.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from typing import Any

_PROBE_BYTES = 32


class Refusal(Exception):
    """What the other side turns into a message: a word for the kind, and details."""

    def __init__(self, kind: str, **details: Any) -> None:
        super().__init__(kind)
        self.answer = {"failed": kind, **details}


def main() -> int:
    # Modules print what they like: standard output is kept for the answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read())
    # A call that hangs in the module ends with this process even when nobody is left to kill it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["deadline"])
    sys.path[:] = request["path"]
    try:
        answer = _serve(request)
    except Refusal as refusal:
        answer = refusal.answer
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(answers, data) :]
    sys.stderr.flush()
    # Not an ordinary end: that would call into the module once more, where it may hang.
    os._exit(0)


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    try:
        import pkcs11
    except ImportError as exc:
        raise Refusal("binding", detail=str(exc)) from None
    try:
        library = pkcs11.lib(request["module"])
    except pkcs11.PKCS11Error as exc:
        kind = "load" if "while loading" in str(exc) else "initialize"
        raise Refusal(kind, detail=str(exc) or type(exc).__name__) from None
    try:
        session = _session(library, request)
        results = [_perform(session, request, wanted) for wanted in request["operations"]]
        # Which token has taken the PIN: others may have refused the same one.
        return {"results": results, "serial": session.token.serial.decode("utf-8", "replace")}
    except pkcs11.PKCS11Error as exc:
        raise Refusal("error", error=type(exc).__name__, detail=str(exc)) from None


def _session(library: Any, request: dict[str, Any]) -> Any:
    from pkcs11 import TokenFlag, exceptions

    token = _token(library, request["token"])
    flags = token.flags
    about = {"label": token.label, "serial": token.serial.decode("utf-8", "replace")}
    if not flags & TokenFlag.LOGIN_REQUIRED:
        return token.open(rw=request["write"])
    pin = request["pin"]
    if pin is None:
        raise Refusal("pin-needed", **about)
    # The last attempt is a person's: a wrong PIN here would lock the token.
    if flags & TokenFlag.USER_PIN_LOCKED:
        raise Refusal("pin-locked", **about)
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise Refusal("pin-final-try", **about)
    if about["serial"] in request["refused"]:
        raise Refusal("pin-known-wrong", **about)
    if not flags & TokenFlag.USER_PIN_INITIALIZED:
        raise Refusal("pin-not-set", **about)
    try:
        return token.open(rw=request["write"], user_pin=pin)
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange):
        raise Refusal("pin-wrong", **about) from None
    except exceptions.PinLocked:
        raise Refusal("pin-locked", **about) from None
    except exceptions.PinExpired:
        raise Refusal("pin-expired", **about) from None


def _token(library: Any, wanted: dict[str, Any]) -> Any:
    from pkcs11 import TokenFlag, exceptions

    found, seen = [], []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (exceptions.TokenNotPresent, exceptions.TokenNotRecognised):
            continue
        if not token.flags & TokenFlag.TOKEN_INITIALIZED:
            continue
        seen.append(token.label)
        facts = {
            "token": token.label,
            "serial": token.serial.decode("utf-8", "replace"),
            "manufacturer": token.manufacturer_id,
            "model": token.model,
            "slot-id": slot.slot_id,
        }
        if all(facts[name] == value for name, value in wanted.items() if value is not None):
            found.append(token)
    if len(found) != 1:
        raise Refusal("token-ambiguous" if found else "token-absent", seen=seen)
    return found[0]


def _keys(session: Any, request: dict[str, Any]) -> list[Any]:
    from pkcs11 import Attribute, ObjectClass

    search: dict[Any, Any] = {Attribute.CLASS: ObjectClass.SECRET_KEY}
    if request["object"] is not None:
        search[Attribute.LABEL] = request["object"]
    if request["id"] is not None:
        search[Attribute.ID] = base64.b64decode(request["id"])
    return list(session.get_objects(search))


def _key(session: Any, request: dict[str, Any]) -> Any:
    from pkcs11 import KeyType

    found = _keys(session, request)
    if len(found) != 1:
        raise Refusal("key-ambiguous" if found else "key-absent", label=session.token.label)
    key = found[0]
    facts = _facts(key)
    if key.key_type != KeyType.AES or facts["bits"] != 256:
        raise Refusal("key-kind", bits=facts["bits"])
    if not facts["sensitive"]:
        raise Refusal("key-readable")
    return key


def _facts(key: Any) -> dict[str, Any]:
    from pkcs11 import Attribute, exceptions

    def asked(attribute: Any) -> Any:
        try:
            return key[attribute]
        except (exceptions.AttributeTypeInvalid, exceptions.AttributeSensitive):
            return None

    length = asked(Attribute.VALUE_LEN)
    return {
        "bits": None if length is None else length * 8,
        "sensitive": bool(asked(Attribute.SENSITIVE)),
        "extractable": bool(asked(Attribute.EXTRACTABLE)),
        "never_extractable": bool(asked(Attribute.NEVER_EXTRACTABLE)),
        "made_inside": bool(asked(Attribute.LOCAL)),
    }


def _perform(session: Any, request: dict[str, Any], wanted: dict[str, Any]) -> Any:
    from pkcs11 import exceptions

    kind = wanted["do"]
    try:
        if kind == "generate":
            return _generate(session, request)
        key = _key(session, request)
        if kind == "describe":
            token = session.token
            return {
                "token": token.label,
                "serial": token.serial.decode("utf-8", "replace"),
                "manufacturer": token.manufacturer_id,
                "model": token.model,
                **_facts(key),
            }
        if kind == "encrypt":
            nonce = os.urandom(12)
            sealed = _gcm(key, True, nonce, base64.b64decode(wanted["data"]), wanted["context"])
            return base64.b64encode(nonce + sealed).decode()
        return _decrypt(key, base64.b64decode(wanted["data"]), wanted["context"])
    except (
        exceptions.MechanismInvalid,
        exceptions.MechanismParamInvalid,
        exceptions.FunctionNotSupported,
        exceptions.KeyTypeInconsistent,
    ) as exc:
        raise Refusal("mechanism", error=type(exc).__name__, operation=kind) from None


def _decrypt(key: Any, sealed: bytes, context: str) -> str | None:
    from pkcs11 import PKCS11Error

    try:
        return base64.b64encode(_gcm(key, False, sealed[:12], sealed[12:], context)).decode()
    except PKCS11Error:
        # Modules call a tag that does not fit by several names, some of which also stand for their
        # own trouble. Whether it is that shows in whether they open what they sealed themselves.
        nonce, probe = os.urandom(12), os.urandom(_PROBE_BYTES)
        if _gcm(key, False, nonce, _gcm(key, True, nonce, probe, context), context) != probe:
            raise
        return None


def _gcm(key: Any, encrypt: bool, nonce: bytes, data: bytes, context: str) -> bytes:
    from pkcs11 import GCMParams, Mechanism

    method = key.encrypt if encrypt else key.decrypt
    parameters = GCMParams(nonce, context.encode(), 128)
    return bytes(method(data, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))


def _generate(session: Any, request: dict[str, Any]) -> dict[str, Any]:
    from pkcs11 import Attribute, KeyType

    if _keys(session, request):
        raise Refusal("key-exists", label=session.token.label)
    id = base64.b64decode(request["id"]) if request["id"] is not None else os.urandom(8)
    template = {
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.MODIFIABLE: False,
        Attribute.ENCRYPT: True,
        Attribute.DECRYPT: True,
        **dict.fromkeys(
            (Attribute.WRAP, Attribute.UNWRAP, Attribute.SIGN, Attribute.VERIFY, Attribute.DERIVE),
            False,
        ),
    }
    key = session.generate_key(
        KeyType.AES, 256, label=request["object"], id=id, store=True, template=template
    )
    return {"id": base64.b64encode(id).decode(), **_facts(key)}


if __name__ == "__main__":
    sys.exit(main())

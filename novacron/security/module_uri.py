"""``pkcs11:`` references (RFC 7512): which key in which token of which module.

Of the attributes of section 2.3 those are understood that say which token and which key it is, and
of the query those that say where the module and the PIN are. An attribute that is not understood is
an error and not ignored: leaving one out would match more than was asked for.
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import quote_from_bytes

from novacron.record import Record
from novacron.security.errors import SecretReferenceError

SCHEME = "pkcs11:"
_KEY = "security.master_key"
_TEXT = ("token", "manufacturer", "serial", "model", "object")
_PATH = (*_TEXT, "slot-id", "id", "type")
_QUERY = ("module-path", "pin-source")
_ATTRIBUTE = re.compile(r"([a-z0-9-]+)=(.*)", re.DOTALL)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
# Section 2.3, pk11-pchar and pk11-qchar: everything else is written as %XX.
_SAFE_PATH = ":[]@!$'()*+,=&"
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=&-]|%[0-9A-Fa-f]{2})*")
_PLAIN_QUERY = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=/?|-]|%[0-9A-Fa-f]{2})*")
_LARGEST_SLOT = 2**64 - 1
_LONGEST = 2048


class KeyUri(Record):
    """What a reference says; None for what it leaves open."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: str | None = None
    pin_source: str | None = None

    def __str__(self) -> str:
        """The reference, spelled in one way; without its query, which says nothing of the key."""
        parts = [
            f"{name}={quote_from_bytes(str(value).encode(), safe=_SAFE_PATH)}"
            for name in _TEXT
            if (value := getattr(self, name)) is not None
        ]
        if self.slot_id is not None:
            parts.append(f"slot-id={self.slot_id}")
        if self.id is not None:
            parts.append("id=" + "".join(f"%{byte:02X}" for byte in self.id))
        return SCHEME + ";".join(parts)


def parse(reference: str, *, key: str = _KEY) -> KeyUri:
    """What the ``pkcs11:`` reference *reference* says.

    Raises:
      SecretReferenceError: it is no such URI, leaves open which key is meant, or holds a PIN. The
        message names attributes and never their values.
    """
    if not reference.startswith(SCHEME) or len(reference) > _LONGEST:
        _refuse("it does not begin with pkcs11:, or is too long", key)
    path, _, query = reference[len(SCHEME) :].partition("?")
    found: dict[str, bytes] = {}
    for text, separator, known, plain in (
        (path, ";", _PATH, _PLAIN_PATH),
        (query, "&", _QUERY, _PLAIN_QUERY),
    ):
        for part in text.split(separator) if text else ():
            name, value = _attribute(part, known, plain, key)
            if name in found:
                _refuse(f"{name} is there twice", key)
            found[name] = value
    texts = {name: _decoded(name, found[name], key) for name in found if name != "id"}
    if texts.get("type", "secret-key") != "secret-key":
        _refuse("its type is not secret-key, and a master key is one", key)
    if not texts.get("object") and not found.get("id"):
        _refuse("it names no key", key, "add object=LABEL, or id=%01%02 with the bytes of its id")
    return KeyUri(
        **{name: texts.get(name) for name in _TEXT},
        slot_id=_slot(texts.get("slot-id"), key),
        id=found.get("id"),
        module_path=texts.get("module-path"),
        pin_source=_pin_source(texts.get("pin-source")),
    )


def _attribute(
    part: str, known: tuple[str, ...], plain: re.Pattern[str], key: str
) -> tuple[str, bytes]:
    matched = _ATTRIBUTE.fullmatch(part)
    if matched is None:
        _refuse("a part of it is not of the form name=value", key)
    name, value = matched.groups()
    if name == "pin-value":
        _refuse(
            "it holds a PIN, and the configuration is no place for secrets",
            key,
            "put the PIN into a file with mode 0600 and name that with security.pkcs11_pin; change "
            "the PIN if others may have read it",
        )
    if name not in known:
        # A name that is not ours might be the beginning of a secret pasted here.
        shown = name if name in _PATH + _QUERY or name in _FOREIGN else "one of its attributes"
        _refuse(f"{shown} is not understood here", key)
    if plain.fullmatch(value) is None:
        _refuse(f"the value of {name} holds a character that has to be written as %XX", key)
    if not value:
        _refuse(f"{name} has no value", key)
    raw = value.encode("ascii")
    return name, _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), raw)


_FOREIGN = (
    "library-manufacturer",
    "library-description",
    "library-version",
    "slot-manufacturer",
    "slot-description",
    "module-name",
)


def _decoded(name: str, value: bytes, key: str) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        _refuse(f"the value of {name} is not UTF-8 text", key)
    return text


def _slot(text: str | None, key: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) > _LARGEST_SLOT:
        _refuse("slot-id is not a number", key)
    return int(text)


def _pin_source(text: str | None) -> str | None:
    # RFC 7512 allows a path; everywhere else a reference is written file:PATH.
    return f"file:{text}" if text is not None and text.startswith("/") else text


def _refuse(why: str, key: str, remedy: str = "") -> NoReturn:
    raise SecretReferenceError(
        "cannot use a pkcs11: reference",
        why=why,
        remedy=remedy
        or "write pkcs11:token=TOKEN;object=LABEL; see the guide security, hardware modules",
        key=key,
    )

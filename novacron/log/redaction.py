"""Secrets do not reach a log: registered values and API tokens are masked in the finished line.

The finished line is where message, arguments, extra fields and exception text have come together,
so one pass there misses none of them. A value is masked in the forms it takes on its way into a
line: as it is, escaped as JSON and ``repr`` escape it, in base64 and in hexadecimal.
"""

from __future__ import annotations

import base64
import json

MASK = "[redacted]"

MIN_LENGTH = 6
"""Characters; masking a shorter value would tear holes into every line and hide nothing."""

TOKEN_PREFIXES = ("nct_", "ncc_", "ncj_")
"""Of a node's own API tokens, of a cluster's, and of those that nodes join with."""

_forms: dict[str, int] = {}
"""Text to look for, and how many registered values have it."""
_ordered: tuple[str, ...] = ()
"""The same, longest first: a value inside another must not break the longer one apart."""


def register_secret(secret: str | bytes) -> None:
    """Mask *secret* in every log record from now on.

    Values shorter than :data:`MIN_LENGTH` are ignored. Registering twice is harmless.
    """
    for form in _forms_of(secret):
        _forms[form] = _forms.get(form, 0) + 1
    _order()


def forget_secret(secret: str | bytes) -> None:
    """Undo one :func:`register_secret` of a value that is no secret any more."""
    for form in _forms_of(secret):
        left = _forms.get(form, 0) - 1
        if left > 0:
            _forms[form] = left
        else:
            _forms.pop(form, None)
    _order()


def _order() -> None:
    global _ordered
    _ordered = tuple(sorted(_forms, key=len, reverse=True))


def _forms_of(secret: str | bytes) -> set[str]:
    raw = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else bytes(secret)
    texts: set[str] = set()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        texts.add(text)
        texts.add(text.strip())
        # A key in PEM may be logged a line at a time. The dashed lines are no secret.
        lines = [line.strip() for line in text.splitlines()]
        if len(lines) > 1:
            texts.update(line for line in lines if len(line) >= 16 and not line.startswith("---"))
    forms = set(texts)
    forms.add(repr(raw)[2:-1])
    forms.update(repr(item)[1:-1] for item in texts)
    for item in list(forms):  # What repr made of it may then have become JSON.
        forms.add(json.dumps(item)[1:-1])
        forms.add(json.dumps(item, ensure_ascii=False)[1:-1])
    if len(raw) >= 4:
        for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
            forms.add(encoded.decode("ascii").rstrip("="))
        forms.add(raw.hex())
        forms.add(raw.hex().upper())
    return {form for form in forms if len(form) >= MIN_LENGTH}


def mask(text: str) -> str:
    """*text* without any registered secret or token."""
    for form in _ordered:
        if form in text:
            text = text.replace(form, MASK)
    for prefix in TOKEN_PREFIXES:
        if prefix in text:
            text = _mask_tokens(text, prefix)
    return text


def _mask_tokens(text: str, prefix: str) -> str:
    import re  # Compiled once by its cache; only a line that holds a token pays.

    return re.sub(rf"{prefix}[A-Za-z0-9_\-]{{8,}}", f"{prefix}{MASK}", text)

"""Log records as lines: JSON for machines, plain for people. Both masked by ``redaction``."""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import Any

from novacron.errors import NovaCronError
from novacron.log.redaction import mask

MAX_LINE = 65536
"""Characters. One record must not fill the queue, nor what reads the log afterwards."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",  # Python 3.12 adds it.
    "shown",  # For StandardErrorHandler alone.
}

_context: dict[str, str] = {}


def bind(**fields: str) -> None:
    """Put *fields*, such as ``boot_id`` and ``node_id``, into every JSON line from now on."""
    _context.update(fields)


def unbind(*names: str) -> None:
    for name in names:
        _context.pop(name, None)


def timestamp(created: float) -> str:
    """*created*, seconds since the epoch, as RFC 3339 in UTC with milliseconds."""
    # Rounded down once: rounding the parts apart would now and then show the previous second.
    milliseconds = int(created * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"


def message_of(record: logging.LogRecord) -> str:
    """The record's message, also where its arguments do not fit its format."""
    try:
        return record.getMessage()
    except Exception as error:  # A wrong log call must not become the failure it reports.
        return f"{record.msg} (log arguments do not fit: {error})"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def exception_of(record: logging.LogRecord) -> dict[str, str] | None:
    """The record's exception as text, with what our errors know beyond it."""
    if not record.exc_info or record.exc_info[1] is None:
        return {"traceback": record.exc_text} if record.exc_text else None
    error = record.exc_info[1]
    text = record.exc_text or "".join(traceback.format_exception(error))
    kind = type(error)
    found = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": _text_of(error),
        "traceback": text.rstrip("\n"),
    }
    if isinstance(error, NovaCronError):
        known = {"code": error.code, "remedy": error.remedy, "key": error.key}
        found.update({name: value for name, value in known.items() if value})
    return found


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__qualname__} that cannot be shown>"


def _finite(value: Any, depth: int = 0) -> Any:
    """*value* with what JSON has no word for as text; for the rare record that has such."""
    if depth > 8:
        return "…"
    if isinstance(value, dict):
        return {_text_of(name): _finite(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return _text_of(value)


def _json(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=_text_of, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # NaN, a cycle, a key that is no text.
        return json.dumps(_finite(line), ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, context, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            **_context,
        }
        for name, value in fields_of(record).items():
            # A field may not pass for one of ours.
            line[f"{name}_" if name in line or name in ("exception", "stack") else name] = value
        exception = exception_of(record)
        if exception is not None:
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = record.stack_info
        text = mask(_json(line))
        if len(text) > MAX_LINE:
            text = mask(_json(_shortened(line)))
        # JSON leaves these two alone, but some readers take them for the end of a line; a lone
        # surrogate cannot be written as UTF-8.
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _shortened(line: dict[str, Any]) -> dict[str, Any]:
    """*line* within :data:`MAX_LINE`, still an object."""
    short: dict[str, Any] = {}
    for name, value in line.items():
        # Masked before it is cut: half a secret is not recognised any more.
        text = mask(value if isinstance(value, str) else _json({"": value}))
        short[name] = value if len(text) <= 1024 else f"{text[:1024]}… ({len(text)} characters)"
        if len(short) >= 24:
            break
    return {**short, "truncated": True}


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS[10], _CONTROLS[13], _CONTROLS[9] = "\\n", "\\r", "\\t"
"""What a peer sends may end up in a message: it must not clear the screen or forge a line."""


class PlainFormatter(logging.Formatter):
    """``TIME LEVEL logger: message key=value``, tracebacks indented below."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_text_of(value)}" for name, value in fields_of(record).items())
        text = (
            f"{timestamp(record.created)} {record.levelname:<8}{record.name}: "
            f"{message_of(record)}{fields}"
        ).translate(_CONTROLS)
        exception = exception_of(record)
        if exception is not None:
            for row in exception["traceback"].splitlines():
                text += "\n    " + row.translate(_CONTROLS)
        text = mask(text)
        if len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]}… ({len(text)} characters)"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

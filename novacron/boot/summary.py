"""The words of a boot for a person: one block when it is READY, one when it failed.

Plain ANSI, no library: most boots are over before rich could be imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from novacron.boot import events

_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2"}
_RANK: Final = {"rest": 0, "metrics": 1, "peer": 2}
_LABEL: Final = 12
_NARROWEST: Final = 24


class Style:
    """How words reach one stream: its width in columns, whether colours, which characters."""

    __slots__ = ("colour", "terminal", "unicode", "width")

    def __init__(
        self,
        *,
        width: int = 80,
        colour: bool = False,
        unicode: bool = True,
        terminal: bool = False,
    ) -> None:
        self.width: Final = max(width, _NARROWEST)
        self.colour: Final = colour
        self.unicode: Final = unicode
        self.terminal: Final = terminal

    def paint(self, words: str, *names: str) -> str:
        """*names*: ``bold`` and the colours."""
        if not self.colour or not names:
            return words
        codes = ";".join("1" if name == "bold" else _COLOURS[name] for name in names)
        return f"\x1b[{codes}m{words}\x1b[0m"

    @property
    def arrow(self) -> str:
        return "→" if self.unicode else "->"


def ready(event: events.NodeReady, style: Style) -> str:
    """The summary of a node that serves, in full or with less."""
    degraded = event.state == "degraded" or bool(event.degraded)
    head = style.paint("READY", "bold", "yellow" if degraded else "green")
    head += f" in {event.seconds:.3f} s"
    if degraded:
        head += ", " + style.paint("degraded", "yellow")
    lines = [head, ""]
    for entry in event.degraded:
        how = " (on its fallback)" if entry.get("fallback") else ""
        words = f"{entry['name']}{how}: {entry['why']}"
        lines += _entry("degraded", words, style, "yellow")
        lines += _remedy(str(entry.get("remedy", "")), str(entry.get("key", "")), style)
    for words in event.warnings:
        lines += _entry("warning", words, style, "yellow")
    # By importance to the reader, not in the order the listeners happened to be bound.
    ranked = sorted(event.addresses.items(), key=lambda item: (_RANK.get(item[0], 9), item[0]))
    for index, (kind, address) in enumerate(ranked):
        lines += _entry("serving" if index == 0 else "", f"{kind:<8} {address}", style)
    lines += _entry("data", event.data_dir, style)
    if event.log_file:
        lines += _entry("logs", event.log_file, style)
    if style.terminal:
        lines += ["", "Ctrl-C stops the node."]
    return "\n".join(lines)


def failed(event: events.BootFailed, style: Style) -> str:
    """What failed, why, what to do, which key; then what became of the rest."""
    failure = event.failure
    # Since the process started; the failure's own `elapsed` is that of the last attempt.
    head = style.paint("BOOT FAILED", "bold", "red") + f" after {event.at:.3f} s"
    where = [
        words
        for words in (
            str(failure.get("component") or ""),
            f"phase {failure['phase']}" if failure.get("phase") else "",
            f"attempt {failure['attempt']}" if failure.get("attempt") else "",
        )
        if words
    ]
    if where:
        head += ": " + ", ".join(where)
    lines = [head, ""]
    lines += _entry("what", str(failure.get("what", "unknown")), style, "red")
    for label, field in (("why", "why"), ("what to do", "remedy"), ("key", "key")):
        words = str(failure.get(field) or "")
        lines += _entry(label, _sentence(words) if field == "remedy" else words, style)
    lines += _rolled_back(event.rollback, style)
    if event.report_path:
        lines += _entry("report", event.report_path, style)
    return "\n".join(lines)


def _rolled_back(rollback: Mapping[str, Any] | None, style: Style) -> list[str]:
    if rollback is None:
        return []
    stopped, undone = rollback.get("stopped") or (), rollback.get("undone") or ()
    words = f"{_count(len(stopped), 'component')} stopped"
    if undone:
        words += f", {_count(len(undone), 'undo step')} ran"
    took = rollback.get("took")
    if isinstance(took, int | float):
        words += f", in {took:.3f} s"
    lines = _entry("rolled back", words, style)
    for trouble in rollback.get("failures") or ():
        if isinstance(trouble, Mapping):
            name = trouble.get("component") or trouble.get("name") or ""
            words = f"{name}: {trouble.get('what', '')}" if name else str(trouble.get("what", ""))
        else:
            words = str(trouble)
        lines += _entry("not undone", words, style, "red")
    return lines


def clean(words: str) -> str:
    """*words* on one line and without control characters: an error's text may come from a file or
    a peer, and a terminal obeys what it is sent."""
    return "".join(
        character if character.isprintable() else " " for character in " ".join(words.split())
    )


def wrap(words: str, width: int) -> list[str]:
    """Break at blanks into lines of at most *width*; a longer word (a path) stays whole, so that it
    can be copied."""
    lines: list[str] = []
    line = ""
    for word in words.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _entry(label: str, words: str, style: Style, colour: str = "dim") -> list[str]:
    """``  label       words``, wrapped under itself."""
    if not words:
        return []
    # Blanks line up the addresses: keep runs of them, unlike everything else that `clean` joins.
    text = (
        clean(words) if "  " not in words else "".join(c if c.isprintable() else " " for c in words)
    )
    indent = 2 + _LABEL
    lines = wrap(text, max(style.width - indent, _NARROWEST - 4))
    head = "  " + (style.paint(f"{label:<{_LABEL}}", colour) if label else " " * _LABEL)
    return [head + lines[0], *(" " * indent + line for line in lines[1:])]


def _remedy(remedy: str, key: str, style: Style) -> list[str]:
    words = _sentence(remedy)
    if key:
        words = f"{words} [{key}]" if words else f"[{key}]"
    return _entry("", f"{style.arrow} {words}", style) if words else []


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Configuration files as trees of values that know their line.

Both readers build the same tree and hold the same limits: YAML (from libyaml's events, so that an
alias is a reference we count and not a bomb that has gone off) and JSON (so that a JSON file needs
no YAML library, and still has line numbers, which the standard library's reader throws away).

The scalars of YAML are those of its 1.2 core schema, not of 1.1: ``off`` is a word (``api.tls: off``
means what it says), ``12:30`` and ``0123`` are not numbers in base 60 and 8, ``1e3`` is a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from novacron.record import Record

MAX_FILE_BYTES = 1024 * 1024
"""The default file is 20 KiB; a file fifty times that is not a configuration."""
MAX_DEPTH = 32
"""The schema is four deep. Bounds the recursion over the tree."""
MAX_NODES = 50_000
"""Counted with aliases followed: ten lines of nested aliases name 10^9 nodes."""


class Node(Record):
    """A value and where it begins."""

    value: Any
    """A dict of text to :class:`Node`, a list of :class:`Node`, or a scalar."""
    line: int
    column: int


class DocumentError(Exception):
    """A file that is not what it should be, at a place."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def excerpt(text: str, line: int, column: int) -> str:
    """Line *line* of *text* and a caret below *column*, both from 1."""
    lines = text.split("\n")
    if not 0 < line <= len(lines):
        return ""
    shown = lines[line - 1].replace("\t", " ").rstrip("\r")
    start = max(0, column - 61)
    cut = shown[start : start + 100]
    gutter = f"  {line} | "
    return f"{gutter}{cut}\n{' ' * (len(gutter) + min(max(0, column - 1 - start), 100))}^"


def plain(node: Node) -> Any:
    """The value of *node* without places."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def height(node: Node) -> int:
    """Levels below and including *node*."""
    if isinstance(node.value, dict):
        return 1 + max(map(height, node.value.values()), default=0)
    if isinstance(node.value, list):
        return 1 + max(map(height, node.value), default=0)
    return 1


class Builder:
    """Puts a tree together and holds the limits, for either reader."""

    def __init__(self) -> None:
        self.nodes = 0

    def count(self, amount: int, line: int, column: int) -> None:
        self.nodes += amount
        if self.nodes > MAX_NODES:
            raise DocumentError(
                f"more than {MAX_NODES} values (aliases count each time)", line, column
            )

    @staticmethod
    def check_depth(depth: int, line: int, column: int) -> None:
        if depth > MAX_DEPTH:
            raise DocumentError(f"nested deeper than {MAX_DEPTH} levels", line, column)

    @staticmethod
    def text(value: str, line: int, column: int) -> str:
        r"""*value* with surrogate pairs joined: JSON writes U+10000 as ``\ud800\udc00``.

        Raises:
          DocumentError: half a pair is no character; nothing could write it out again.
        """
        if value.isascii():
            return value
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise DocumentError("half a surrogate pair is no character", line, column) from None

    @staticmethod
    def add(mapping: dict[str, Node], name: Any, key: Node, value: Node) -> None:
        """Put *value* under *name*, at the place of its *key*.

        Raises:
          DocumentError: the name is there already, or is not text.
        """
        if not isinstance(name, str):
            raise DocumentError(
                f"a key must be text, not {name!r}; put it in quotes", key.line, key.column
            )
        if name in mapping:
            raise DocumentError(
                f"{name!r} is there twice, first in line {mapping[name].line}",
                key.line,
                key.column,
            )
        mapping[name] = Node(value.value, key.line, key.column)


def parse_json(text: str) -> Node:
    """Read a JSON text.

    Raises:
      DocumentError: it is not JSON, names a key twice, or is beyond the limits.
    """
    return _Json(text).document()


class _Json:
    """A reader of RFC 8259 that keeps places. Strings are left to the standard library."""

    def __init__(self, text: str) -> None:
        import json.decoder
        import re

        self.text = text
        self.builder = Builder()
        # A public function of the standard library that its type stubs leave out.
        self.scan_string: Callable[[str, int, bool], tuple[str, int]] = vars(json.decoder)[
            "scanstring"
        ]
        self.decode_error = json.decoder.JSONDecodeError
        self.number = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
        self.space = re.compile(r"[ \t\r\n]*")
        # Places are asked for in rising order, so the lines are counted once.
        self.counted_to = 0
        self.line = 1
        self.line_start = 0

    def place(self, index: int) -> tuple[int, int]:
        if index < self.counted_to:
            self.counted_to, self.line, self.line_start = 0, 1, 0
        newlines = self.text.count("\n", self.counted_to, index)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rfind("\n", 0, index) + 1
        self.counted_to = index
        return self.line, index - self.line_start + 1

    def fail(self, message: str, index: int) -> DocumentError:
        return DocumentError(message, *self.place(index))

    def skip(self, index: int) -> int:
        match = self.space.match(self.text, index)
        return match.end() if match else index

    def document(self) -> Node:
        start = self.skip(0)
        if start == len(self.text):
            return Node(None, 1, 1)
        node, end = self.value(start, 1)
        end = self.skip(end)
        if end != len(self.text):
            raise self.fail("there is more after the end of the JSON value", end)
        return node

    def value(self, index: int, depth: int) -> tuple[Node, int]:
        line, column = self.place(index)
        self.builder.count(1, line, column)
        self.builder.check_depth(depth, line, column)
        text = self.text
        head = text[index : index + 1]
        if head == "{":
            return self.object(index, depth)
        if head == "[":
            return self.array(index, depth)
        if head == '"':
            value, end = self.string(index)
            return Node(value, line, column), end
        for word, constant in (("true", True), ("false", False), ("null", None)):
            if text.startswith(word, index):
                return Node(constant, line, column), index + len(word)
        match = self.number.match(text, index)
        if match is None:
            raise self.fail("a JSON value is expected here", index)
        if match.group(1) is None and match.group(2) is None:
            if match.end() - index > 40:
                raise self.fail("a number of more than 40 digits", index)
            return Node(int(match.group()), line, column), match.end()
        return Node(float(match.group()), line, column), match.end()

    def string(self, index: int) -> tuple[str, int]:
        try:
            value, end = self.scan_string(self.text, index + 1, True)
            return self.builder.text(value, *self.place(index)), end
        except self.decode_error as error:
            message = error.msg[:1].lower() + error.msg[1:]
            raise self.fail(message.removesuffix(" at"), error.pos) from None

    def object(self, index: int, depth: int) -> tuple[Node, int]:
        line, column = self.place(index)
        found: dict[str, Node] = {}
        index = self.skip(index + 1)
        if self.text.startswith("}", index):
            return Node(found, line, column), index + 1
        while True:
            if not self.text.startswith('"', index):
                raise self.fail(
                    "a key in double quotes is expected here; is there a comma too many before it?",
                    index,
                )
            key = Node(None, *self.place(index))
            name, index = self.string(index)
            index = self.skip(index)
            if not self.text.startswith(":", index):
                raise self.fail("a colon is expected after the key", index)
            value, index = self.value(self.skip(index + 1), depth + 1)
            self.builder.add(found, name, key, value)
            index = self.skip(index)
            if self.text.startswith("}", index):
                return Node(found, line, column), index + 1
            if not self.text.startswith(",", index):
                raise self.fail("a comma or a closing brace is expected here", index)
            index = self.skip(index + 1)

    def array(self, index: int, depth: int) -> tuple[Node, int]:
        line, column = self.place(index)
        found: list[Node] = []
        index = self.skip(index + 1)
        if self.text.startswith("]", index):
            return Node(found, line, column), index + 1
        while True:
            value, index = self.value(index, depth + 1)
            found.append(value)
            index = self.skip(index)
            if self.text.startswith("]", index):
                return Node(found, line, column), index + 1
            if not self.text.startswith(",", index):
                raise self.fail("a comma or a closing bracket is expected here", index)
            index = self.skip(index + 1)

"""YAML into the tree of :mod:`novacron.config.documents`. The only importer of PyYAML."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import yaml

from novacron.config.documents import Builder, DocumentError, Node, height


class PythonParser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """Events without libyaml: the same, ten times slower."""

    def __init__(self, stream: str) -> None:
        yaml.reader.Reader.__init__(self, stream)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


Parser: Any = PythonParser
with contextlib.suppress(ImportError):  # PyYAML may have been built without libyaml.
    from yaml.cyaml import CParser as Parser  # type: ignore[attr-defined]

_CORE = "tag:yaml.org,2002:"
_TAGS = {"!", *(_CORE + name for name in ("str", "int", "float", "bool", "null", "seq", "map"))}
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_CONSTANTS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def scalar(text: str) -> Any:
    """A plain scalar as YAML 1.2's core schema reads it (section 10.3.2)."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        # 0123 stays decimal as in 1.2; int(…, 0) would refuse it.
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse_yaml(text: str) -> Node:
    """Read a YAML text of one document.

    Raises:
      DocumentError: it is not YAML, names a key twice, or is beyond the limits.
    """
    try:
        parser = Parser(text)
        return _Tree(parser).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = error.problem or error.context or "not YAML"
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise DocumentError(_explained(message), line, column) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        raise DocumentError("a character that YAML does not allow", line, column) from error
    except yaml.YAMLError as error:
        raise DocumentError(str(error)) from error
    except RecursionError as error:
        raise DocumentError("nested too deep") from error


def _explained(message: str) -> str:
    """libyaml's words, and what they usually mean."""
    if "cannot start any token" in message:
        return f"{message}; indent with spaces, not tabs, and put special characters in quotes"
    if "mapping values are not allowed" in message:
        return f"{message}; is the line indented too far, or a text with a colon not in quotes?"
    if "expected ',' or" in message:
        return f"{message}; is a bracket or a quote above not closed?"
    if "could not find expected ':'" in message or "expected <block end>" in message:
        return f"{message}; is a line above indented differently from its neighbours?"
    return message


class _Tree:
    """Builds the tree from events. Depth and size are checked as it grows."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.builder = Builder()
        self.anchors: dict[str, tuple[Node, int]] = {}
        """Node and how many nodes it holds, itself included."""

    def document(self) -> Node:
        self.parser.get_event()  # StreamStart
        event = self.parser.get_event()
        if isinstance(event, yaml.StreamEndEvent):
            return Node(None, 1, 1)
        node = self.node(self.parser.get_event(), 1)
        self.parser.get_event()  # DocumentEnd
        event = self.parser.get_event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise DocumentError(
                "a second document begins here; one file holds one", event.start_mark.line + 1, 1
            )
        return node

    def node(self, event: Any, depth: int) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor, line, column, depth)
        before = self.builder.nodes
        self.builder.count(1, line, column)
        self.builder.check_depth(depth, line, column)
        if event.tag is not None and event.tag not in _TAGS:
            raise DocumentError(f"the tag {event.tag} is not supported", line, column)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
            if isinstance(value, str):
                value = self.builder.text(value, line, column)
            node = Node(value, line, column)
        elif isinstance(event, yaml.SequenceStartEvent):
            found: list[Node] = []
            while not isinstance(item := self.parser.get_event(), yaml.SequenceEndEvent):
                found.append(self.node(item, depth + 1))
            node = Node(found, line, column)
        else:
            node = self.mapping(line, column, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.builder.nodes - before)
        return node

    def alias(self, anchor: str | None, line: int, column: int, depth: int) -> Node:
        # An anchor is noted when its node is complete, so a node cannot hold itself.
        known = self.anchors.get(anchor or "")
        if known is None:
            raise DocumentError(f"the alias *{anchor} names no complete anchor", line, column)
        node, size = known
        self.builder.count(size, line, column)
        self.builder.check_depth(depth + height(node) - 1, line, column)
        return Node(node.value, line, column)

    def mapping(self, line: int, column: int, depth: int) -> Node:
        found: dict[str, Node] = {}
        while not isinstance(event := self.parser.get_event(), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            if key.value == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                raise DocumentError("merge keys (<<) are not supported", key.line, key.column)
            value = self.node(self.parser.get_event(), depth + 1)
            if isinstance(key.value, dict | list):
                raise DocumentError(
                    "a key must be text, not a mapping or a list", key.line, key.column
                )
            self.builder.add(found, key.value, key, value)
        return Node(found, line, column)

    @staticmethod
    def scalar(event: Any) -> Any:
        if event.tag in (None, "!") and not event.implicit[0]:
            return event.value  # In quotes, or a block.
        return event.value if event.tag == f"{_CORE}str" else scalar(event.value)

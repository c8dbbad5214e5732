from __future__ import annotations

import ast
from pathlib import Path

import pytest

import novacron.protocol
from novacron.protocol.codes import ErrorCode, GoodbyeReason
from novacron.protocol.diagram import state_diagram
from novacron.protocol.frames import HEADER_BYTES, MAX_DEPTH, MAX_ITEMS, MAX_TEXT_BYTES
from novacron.protocol.messages import MESSAGES
from novacron.protocol.session import HANDSHAKE_MAX_PAYLOAD, MAX_PINGS_PER_SECOND

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "peer-protocol.md"


def test_the_diagram_of_the_page_is_the_one_of_the_tables() -> None:
    assert f"```mermaid\n{state_diagram()}```\n" in PAGE.read_text()


@pytest.mark.parametrize(
    "fact",
    [
        *(f"| {kind.type} | {kind.__name__} |" for kind in MESSAGES),
        *(f"| {code.value} | {code.name.lower()} |" for code in ErrorCode),
        *(f"| {reason.value} | {reason.name.lower()} |" for reason in GoodbyeReason),
        f"{HEADER_BYTES} bytes",
        f"at most {MAX_DEPTH} levels",
        f"at most {MAX_ITEMS} values",
        f"{MAX_TEXT_BYTES} bytes",
        f"{HANDSHAKE_MAX_PAYLOAD} bytes",
        f"{MAX_PINGS_PER_SECOND} pings a second",
    ],
)
def test_the_page_states_what_the_code_does(fact: str) -> None:
    assert fact in PAGE.read_text()


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_page_names_every_field(kind: type) -> None:
    text = PAGE.read_text()
    for name in kind.__slots__:  # type: ignore[attr-defined]
        assert f"`{name}`" in text


def test_the_protocol_does_no_input_or_output() -> None:
    for path in Path(novacron.protocol.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {name.split(".")[0] for name in names} & {
                "trio",
                "socket",
                "ssl",
                "subprocess",
                "threading",
            }

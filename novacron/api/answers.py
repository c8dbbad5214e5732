"""What answers hold, for the OpenAPI document and the reference: where their names do not say it all.

Made when somebody asks for the document, not at boot; answers themselves are plain values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

TRANSFER: Final = "Transfer"
CODING: Final = "CodingReport"
CODED: Final = "Coded"
DECISION: Final = "CodingDecision"

_TYPES: Final = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}

_TRANSFER: Final = {
    "bytes_done": "Of content: there, or there again; holes included.",
    "bytes_moved": "Of content that crossed the link.",
    "bytes_zero": "Of content that was a hole.",
    "bytes_resent": "Of content that was sent more than once.",
    "wire_bytes": "On the wire: with headers, tags and what was sent again.",
    "rate_bps": "Bytes of content a second, over the last five.",
    "wire_rate_bps": "Bytes on the wire a second, over the last five.",
    "eta_seconds": "Until it is done; null where nobody can tell.",
    "limit_bps": "Bytes a second at most; 0: no limit.",
}
_CODED: Final = {
    "chunks": "How many.",
    "bytes": "Of content.",
    "wire_bytes": "What they became.",
}
_WAYS: Final = {
    "zero": "Nothing but zeros; nothing was sent for them.",
    "raw": "Sent as they are, since no codec paid.",
    "lz4": "Encoded with lz4.",
    "zstd": "Encoded with zstd.",
    "delta": "Sent as the difference to what the receiver had; among raw, lz4 and zstd as well.",
}
_STAGES: Final = {
    "read": "Reading the source, and its checksum.",
    "zero": "Looking for zeros.",
    "sample": "Trying a codec on a part.",
    "delta": "Differences.",
    "encode": "Codecs.",
    "seal": "Encryption.",
    "decode": "At the receiver: codec, difference, checksum.",
}
_DECISION: Final = {
    "at": "Seconds since the epoch.",
    "before": "The codec and level until then.",
    "after": "The one from then on.",
    "why": "In a sentence.",
    "link_bps": "What the link was believed to take, bytes a second.",
    "encode_bps": "What one thread encodes with the new one, bytes of content a second; 0: raw.",
    "ratio": "Content for each byte on the wire, with the new one.",
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "description": description, "properties": properties}


def _fields(kind: Any, words: dict[str, str]) -> dict[str, Any]:
    """Of a record, its fields that *words* are about."""
    found: dict[str, Any] = {}
    for name, text in words.items():
        of, _, nothing = str(kind.__annotations__[name]).partition(" | ")
        type = _TYPES[of]
        found[name] = {"type": [type, "null"] if nothing else type, "description": text}
    return found


def _transfer() -> dict[str, Any]:
    from novacron.dwcp.amst.transfer import TransferView

    fields = _fields(TransferView, _TRANSFER)
    described = {"description": "How its content was encoded, or decoded.", "allOf": [_ref(CODING)]}
    return _object(
        "A transfer; `novacron transfers show` shows the same.", {**fields, "coding": described}
    )


def _coding() -> dict[str, Any]:
    from novacron.dwcp.hde.report import StageSeconds

    ways = {way: {"description": text, "allOf": [_ref(CODED)]} for way, text in _WAYS.items()}
    return _object(
        "What an object's content became on its way, in all attempts.",
        {
            "bytes": {"type": "integer", "description": "Of content, zeros included."},
            "wire_bytes": {
                "type": "integer",
                "description": "What it became, without headers and tags.",
            },
            "ratio": {
                "type": ["number", "null"],
                "description": "Content, but for zeros, for each of wire_bytes; null where nothing was sent.",
            },
            **ways,
            "refused_bases": {
                "type": "integer",
                "description": "Chunks sent whole in the end, since the receiver had something else.",
            },
            "budget_chunks": {
                "type": "integer",
                "description": "Chunks sent as they are, since the CPU of dwcp.hde.cpu was used up.",
            },
            "cpu_seconds": _object("CPU seconds by stage.", _fields(StageSeconds, _STAGES)),
            "decisions": {
                "type": "array",
                "description": "The last changes of the codec, oldest first.",
                "items": _ref(DECISION),
            },
        },
    )


def _coded() -> dict[str, Any]:
    from novacron.dwcp.hde.report import Coded

    return _object("Chunks that were encoded alike.", _fields(Coded, _CODED))


def _decision() -> dict[str, Any]:
    from novacron.dwcp.hde.report import Decision

    return _object("A change of the codec.", _fields(Decision, _DECISION))


SCHEMAS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    TRANSFER: _transfer,
    CODING: _coding,
    CODED: _coded,
    DECISION: _decision,
}

"""What a node can encode with, for ``novacron hde show``: from the libraries and files of this host,
without asking the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from novacron._native import hde
from novacron.config.schema import HdeSettings
from novacron.dwcp.hde.dictionary import Dictionary
from novacron.dwcp.hde.messages import MessageCodec
from novacron.errors import NativeError


def overview(settings: HdeSettings) -> dict[str, Any]:
    """Blocks on the disk."""
    codec = MessageCodec(settings.dictionary)
    codec.load()
    return {
        "codecs": codecs(),
        "messages": {
            "library": codec.library,
            "dictionaries": [_described(one) for one in codec.dictionaries],
            "faults": [_fault(str(fault)) for fault in codec.faults],
        },
        "settings": {f"dwcp.hde.{name}": value for name, value in settings},
    }


def codecs() -> list[dict[str, str]]:
    """Of chunks: those of the engine, and the library of each."""
    try:
        return [
            {"codec": name, "version": hde.version(name), "why": hde.missing(name)}
            for name in hde.CODECS
        ]
    except NativeError as exc:
        return [{"codec": name, "version": "", "why": str(exc)} for name in hde.CODECS[1:]]


def _described(one: Dictionary) -> dict[str, Any]:
    return {
        "id": one.id,
        "origin": "retrained" if one.retrained else "shipped",
        "bytes": len(one.content),
        "sha256": one.digest.hex(),
        "file": str(Path(one.path)),
    }


def _fault(text: str) -> str:
    return " ".join(text.split())

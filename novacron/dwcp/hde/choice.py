"""How one transfer is to be encoded, as an operator writes it: ``auto``, ``off``, ``lz4``, ``zstd``
or ``zstd:LEVEL``; nothing for what the node's configuration says."""

from __future__ import annotations

import re
from typing import Final

from novacron.config.schema import HdeSettings
from novacron.dwcp.amst.transport import Coding

MIN_LEVEL: Final = -7
MAX_LEVEL: Final = 19
"""Of zstd. Past it a window is larger than any chunk."""
_CHOICE: Final = re.compile(r"|auto|off|lz4|zstd(:-?[0-9]{1,2})?")
_POLICIES: Final = {"auto": "adaptive", "off": "off"}


def fault_of(text: str) -> str:
    """What is wrong with *text*; empty where nothing is."""
    if _CHOICE.fullmatch(text) is None:
        return "it must be auto, off, lz4, zstd or zstd:LEVEL"
    level = text.partition(":")[2]
    if level and not MIN_LEVEL <= int(level) <= MAX_LEVEL:
        return f"the level of zstd is {MIN_LEVEL} to {MAX_LEVEL}"
    return ""


def default(settings: HdeSettings) -> Coding:
    """What ``dwcp.hde`` says."""
    plain = Coding("off", "zstd", settings.level, level_max=settings.level_max)
    return chosen(settings.codec, plain)


def chosen(text: str, node: Coding) -> Coding:
    """*text*, which was checked, where *node* is what the configuration says: of that, what *text*
    says nothing about."""
    if not text:
        return node
    codec, _, level = text.partition(":")
    policy = _POLICIES.get(codec, "fixed")
    if policy != "fixed":
        return node._replace(policy=policy)
    if codec == "lz4":
        return node._replace(policy=policy, codec=codec, level=1)
    usual = node.level if node.codec == codec else Coding().level
    return node._replace(policy=policy, codec=codec, level=int(level) if level else usual)

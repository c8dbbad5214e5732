"""What two nodes say to each other about blocks: which ones a file has, and which are held.

A sender that deduplicates asks ``amst.dedup`` once, after ``amst.begin``; a node that answers that it
knows no such request is not asked anything else here. Then the answer to ``amst.entries`` may have
entries in the state ``blocks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from novacron.dwcp.amst.messages import (
    Check,
    Message,
    binary,
    boolean,
    integer,
    nested,
    one_of,
    optional,
)
from novacron.dwcp.amst.transfer_messages import Trouble
from novacron.dwcp.hde.blocks.core import (
    DIGEST_BYTES,
    MAX_BLOCKS,
    MAX_PLACES_BYTES,
    POLICIES,
    fault_of_tenant,
)

_id = binary(16)
_index = integer(0, (1 << 32) - 1)
_size = integer(0, (1 << 63) - 1)
_trouble = optional(nested(Trouble))
NO_SCHEME: Final = 0


def _tenant(value: Any) -> str:
    if type(value) is not str:
        return "must be a string"
    fault = fault_of_tenant(value)
    return f"cannot be {value[:64]!a}: {fault}" if fault else ""


class AskDedup(Message):
    """Sender: whose files these are, and whether to look for what the receiver holds. ``scheme``: how
    it cuts files, 0 where it does not. ``min_bytes``: smaller files are not worth it."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "tenant": _tenant,
        "policy": one_of(*POLICIES),
        "scheme": _index,
        "min_bytes": _size,
    }
    transfer: bytes
    tenant: str
    policy: str
    scheme: int
    min_bytes: int


class Dedup(Message):
    """``scheme``: 0 where the receiver does not look; else it may answer entries with ``blocks``.
    ``policy``: the one of whoever asked for the transfer, at either end."""

    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
        "policy": one_of(*POLICIES),
        "scheme": _index,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    trouble: Trouble | None
    policy: str
    scheme: int


class Blocks(Message):
    """Sender: blocks of a file, in the order of their places. ``begin``: where the page before
    ended. ``places``: packed, from there on (:mod:`novacron.dwcp.hde.blocks.core`). ``end``: up to
    here everything that is in no block is zero. ``last``: no more come, whatever lies behind."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "entry": _index,
        "begin": _size,
        "end": _size,
        "places": binary(0, MAX_PLACES_BYTES),
        "digests": binary(0, MAX_BLOCKS * DIGEST_BYTES),
        "last": boolean,
    }
    transfer: bytes
    entry: int
    begin: int
    end: int
    places: bytes
    digests: bytes
    last: bool


class BlocksHeld(Message):
    """``held``: bit ``i`` of byte ``i // 8`` for block ``i`` of the page: it was found, checked and
    put in its place. Blocks in chunks that were on record before are not looked for."""

    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
        "held": binary(0, MAX_BLOCKS // 8),
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    trouble: Trouble | None
    held: bytes

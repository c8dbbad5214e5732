"""What two nodes say to each other about transfers, in requests of their peer session.

Everything a peer says is checked before anything acts on it. ``docs/reference/amst-protocol.md``
tells the order the messages come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeVar

from novacron.dwcp.amst import messages
from novacron.dwcp.amst.messages import (
    Check,
    Message,
    binary,
    boolean,
    integer,
    list_of,
    nested,
    one_of,
    optional,
    text,
)
from novacron.dwcp.amst.transport import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from novacron.errors import NovaCronError

MAX_PATH_BYTES: Final = 4096
MAX_ENTRIES: Final = 64
"""In one message. A payload of the peer protocol holds 4096 values, an entry is 23 of them."""
MAX_PATHS: Final = 64
HAVE_CHUNKS: Final = 65536
"""Chunks that one answer to ``amst.have`` tells of: their checksums are 256 KiB."""
MAX_RUNS_BYTES: Final = 192 * 1024
WANTED: Final = ("wanted", "blocks")
"""States of an entry that is to be sent."""
_CHUNK_STEP: Final = 4096

M = TypeVar("M", bound=Message)


def pack(message: Message) -> bytes:
    """Raises MessageError: a field is not what it has to be."""
    return messages.pack(message)


def unpack(kind: type[M], body: bytes) -> M:
    """The message in *body*, with the messages in it.

    Raises:
      MessageError: it is not one of that kind.
    """
    return _lift(messages.unpack(kind, body))


def _lift(message: M) -> M:
    """*message* with its inner maps, which were checked, as messages."""
    inner = getattr(type(message), "inner", {})
    changes = {
        name: _lift_value(kind, value)
        for name, kind in inner.items()
        if (value := getattr(message, name)) is not None
    }
    return message._replace(**changes) if changes else message


def _lift_value(kind: type[Message], value: Any) -> Any:
    if isinstance(value, list):
        return [_lift_value(kind, item) for item in value]
    return _lift(kind(**value))


def _chunk_bytes(value: Any) -> str:
    if (
        type(value) is int
        and MIN_CHUNK_BYTES <= value <= MAX_CHUNK_BYTES
        and not value % _CHUNK_STEP
    ):
        return ""
    return f"must be {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}, a multiple of {_CHUNK_STEP}"


_id = binary(16)
_hash = binary(32)
_index = integer(0, (1 << 32) - 1)
_number = integer(1, (1 << 32) - 1)
_size = integer(0, (1 << 63) - 1)
_signed = integer(-(1 << 63), (1 << 63) - 1)
_path = text(MAX_PATH_BYTES)
_runs = binary(0, MAX_RUNS_BYTES)
_priority = integer(0, 255)


class Trouble(Message):
    """Why something was not done: an error of the taxonomy, as the other node tells it."""

    checks: ClassVar[Mapping[str, Check]] = {
        "code": text(64),
        "what": text(1024),
        "why": text(4096),
        "remedy": text(1024),
        "key": text(128),
    }
    code: str
    what: str
    why: str
    remedy: str
    key: str

    @classmethod
    def of(cls, exc: NovaCronError) -> Trouble:
        return cls(
            exc.code[:64],
            _cut(exc.what, 1024),
            _cut(exc.why, 4096),
            _cut(exc.remedy, 1024),
            exc.key[:128],
        )


def _cut(text: str, max_bytes: int) -> str:
    data = text.encode("utf-8", "replace")
    return data[:max_bytes].decode("utf-8", "ignore")


_trouble = optional(nested(Trouble))


class Begin(Message):
    """Sender: a transfer begins, or goes on after an interruption. What was under way for it on
    another link is given up by the receiver before it answers.

    ``path``: where to, as the receiver's operator would write it; not looked at when ``expected``,
    the id of a pull, is there. ``into``: a directory to put the entries in, even a single one.
    """

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "link": _id,
        "path": _path,
        "into": boolean,
        "overwrite": boolean,
        "on_change": one_of("refuse", "restart"),
        "priority": _priority,
        "expected": optional(_id),
    }
    transfer: bytes
    link: bytes
    path: str
    into: bool
    overwrite: bool
    on_change: str
    priority: int
    expected: bytes | None


class Begun(Message):
    """``checksum``: of chunks. ``resumed``: the receiver knew the transfer. ``destination``: where
    it writes, for people."""

    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
        "checksum": one_of("crc32"),
        "resumed": boolean,
        "destination": _path,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    trouble: Trouble | None
    checksum: str
    resumed: bool
    destination: str


class Entry(Message):
    """One file or directory. ``path`` is relative to the destination, empty for the destination
    itself. ``identity`` changes when the source does. ``number`` and ``generation`` name the object
    on the link."""

    checks: ClassVar[Mapping[str, Check]] = {
        "entry": _index,
        "number": _number,
        "generation": _index,
        "path": _path,
        "kind": one_of("file", "dir"),
        "size": _size,
        "mode": integer(0, 0o7777),
        "mtime_ns": _signed,
        "sparse": boolean,
        "chunk_bytes": _chunk_bytes,
        "identity": _hash,
    }
    entry: int
    number: int
    generation: int
    path: str
    kind: str
    size: int
    mode: int
    mtime_ns: int
    sparse: bool
    chunk_bytes: int
    identity: bytes


class Entries(Message):
    """Sender: the next few. The totals are of all there will be, as far as is known."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "total_files": _size,
        "total_bytes": _size,
        "entries": list_of(nested(Entry), MAX_ENTRIES, 1),
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"entries": Entry}
    transfer: bytes
    total_files: int
    total_bytes: int
    entries: list[Entry]


class EntryState(Message):
    """``wanted``: the object is expected now, or after :class:`Start` where ``held`` (chunks) is
    not 0. ``blocks``: as wanted, and always after :class:`Start`; before that the sender may tell its
    blocks (:mod:`~novacron.dwcp.amst.block_messages`), if it has said that it can. ``done``: it is
    there. ``refused``: with the trouble."""

    checks: ClassVar[Mapping[str, Check]] = {
        "entry": _index,
        "state": one_of(*WANTED, "done", "refused"),
        "held": _size,
        "trouble": _trouble,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    entry: int
    state: str
    held: int
    trouble: Trouble | None


class EntriesTaken(Message):
    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
        "entries": list_of(nested(EntryState), MAX_ENTRIES),
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble, "entries": EntryState}
    trouble: Trouble | None
    entries: list[EntryState]


class AskHave(Message):
    """Sender: which chunks of an object are held, from chunk ``first`` on?"""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "entry": _index,
        "first": _size,
    }
    transfer: bytes
    entry: int
    first: int


class HavePage(Message):
    """``runs``: packed (:mod:`~novacron.dwcp.amst.runs`), of chunks of the whole object. ``leaves``:
    theirs. ``next``: where the next page begins, 0 after the last."""

    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
        "runs": _runs,
        "leaves": binary(0, HAVE_CHUNKS * 4),
        "next": _size,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    trouble: Trouble | None
    runs: bytes
    leaves: bytes
    next: int


class Start(Message):
    """Sender: the chunks held are as the source's, but for those in ``drop`` (packed runs); all of
    them are to be dropped when ``drop_all``. The object is expected when this is answered."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "entry": _index,
        "drop_all": boolean,
        "drop": _runs,
    }
    transfer: bytes
    entry: int
    drop_all: bool
    drop: bytes


class Outcome(Message):
    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    trouble: Trouble | None


class FinishObject(Message):
    checks: ClassVar[Mapping[str, Check]] = {
        "entry": _index,
        "root": _hash,
    }
    entry: int
    root: bytes


class Finish(Message):
    """Sender: these were sent whole; check them against their roots and give them their names."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "objects": list_of(nested(FinishObject), MAX_ENTRIES, 1),
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"objects": FinishObject}
    transfer: bytes
    objects: list[FinishObject]


class FinishedObject(Message):
    checks: ClassVar[Mapping[str, Check]] = {
        "entry": _index,
        "trouble": _trouble,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    entry: int
    trouble: Trouble | None


class Finished(Message):
    checks: ClassVar[Mapping[str, Check]] = {
        "trouble": _trouble,
        "objects": list_of(nested(FinishedObject), MAX_ENTRIES),
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble, "objects": FinishedObject}
    trouble: Trouble | None
    objects: list[FinishedObject]


class Drop(Message):
    """Sender: this entry will not come in this attempt, because of the trouble. What there is of
    it stays for another."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "entry": _index,
        "trouble": nested(Trouble),
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    transfer: bytes
    entry: int
    trouble: Trouble


class End(Message):
    """Sender: the transfer is over. What is partial stays where it failed, and goes where it was
    cancelled."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "state": one_of("done", "failed", "cancelled"),
        "trouble": _trouble,
    }
    inner: ClassVar[Mapping[str, type[Message]]] = {"trouble": Trouble}
    transfer: bytes
    state: str
    trouble: Trouble | None


class Control(Message):
    """Receiver: what its operator wants of the sender."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "action": one_of("pause", "resume", "cancel", "limit"),
        "limit_bps": _size,
    }
    transfer: bytes
    action: str
    limit_bps: int


class Pause(Message):
    """Sender: it stopped sending for a while, or goes on."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "paused": boolean,
    }
    transfer: bytes
    paused: bool


class Pull(Message):
    """Receiver: send me that. Asked again, it tells of the same transfer."""

    checks: ClassVar[Mapping[str, Check]] = {
        "transfer": _id,
        "paths": list_of(_path, MAX_PATHS, 1),
        "recursive": boolean,
        "on_change": one_of("refuse", "restart"),
        "priority": _priority,
        "limit_bps": _size,
        "deadline_ms": _size,
        "again": boolean,
    }
    transfer: bytes
    paths: list[str]
    recursive: bool
    on_change: str
    priority: int
    limit_bps: int
    deadline_ms: int
    """Milliseconds from now; 0: none."""
    again: bool
    """Also where that transfer failed before."""


class OpenStream(Message):
    """A byte stream for *service*: ``number`` carries what the asking side sends, ``back`` what
    comes back. ``window``: bytes that may be unread, in each direction."""

    checks: ClassVar[Mapping[str, Check]] = {
        "stream": _id,
        "link": _id,
        "number": _number,
        "back": _number,
        "window": integer(65536, 1 << 32),
        "service": text(64),
    }
    stream: bytes
    link: bytes
    number: int
    back: int
    window: int
    service: str

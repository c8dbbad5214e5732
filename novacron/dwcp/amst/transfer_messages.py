"""What two nodes say to each other about transfers, in requests of their peer session.

Each message is one msgpack map with the field names below as keys, all of them present and no
others; everything a peer says is checked before anything acts on it. ``docs/reference/
amst-protocol.md`` tells the order they come in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Self

from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.transport import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from novacron.errors import NovaCronError
from novacron.protocol.codes import ViolationError
from novacron.protocol.frames import decode_payload, encode_payload
from novacron.record import Record

MAX_BODY_BYTES: Final = 512 * 1024
"""Half of what a session takes by default, so that no allowed message meets its limit."""
MAX_PATH_BYTES: Final = 4096
MAX_ENTRIES: Final = 64
"""In one message. A payload of the peer protocol holds 4096 values, an entry is 25 of them."""
MAX_PATHS: Final = 64
HAVE_CHUNKS: Final = 65536
"""Chunks that one answer to ``amst.have`` tells of: their checksums are 256 KiB."""
_PAGE_CHUNK_STEP: Final = 4096

Check = Callable[[Any], Any]
"""Takes a value from the wire and returns it as the program wants it; raises ValueError."""


def _whole(bits: int, minimum: int = 0) -> Check:
    top = (1 << bits) - 1

    def check(value: Any) -> int:
        if type(value) is int and minimum <= value <= top:
            return value
        raise ValueError(f"must be an integer from {minimum} to {top}")

    return check


def _signed(value: Any) -> int:
    if type(value) is int and -(1 << 63) <= value < 1 << 63:
        return value
    raise ValueError("must be a 64-bit integer")


def _chunk_bytes(value: Any) -> int:
    if (
        type(value) is int
        and MIN_CHUNK_BYTES <= value <= MAX_CHUNK_BYTES
        and not value % _PAGE_CHUNK_STEP
    ):
        return value
    raise ValueError(f"must be {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}, a multiple of 4096")


def _text(max_bytes: int) -> Check:
    def check(value: Any) -> str:
        if type(value) is str and len(value.encode("utf-8", "replace")) <= max_bytes:
            return value
        raise ValueError(f"must be a string of at most {max_bytes} bytes")

    return check


def _bytes(minimum: int, maximum: int) -> Check:
    def check(value: Any) -> bytes:
        if type(value) is bytes and minimum <= len(value) <= maximum:
            return value
        raise ValueError(f"must be {minimum} to {maximum} bytes")

    return check


def _choice(*known: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is str and value in known:
            return value
        raise ValueError(f"must be one of {', '.join(known)}")

    return check


def _flag(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise ValueError("must be true or false")


def _perhaps(inner: Check) -> Check:
    return lambda value: None if value is None else inner(value)


def _list(inner: Check, most: int, least: int = 0) -> Check:
    def check(value: Any) -> list[Any]:
        if type(value) is list and least <= len(value) <= most:
            return [inner(item) for item in value]
        raise ValueError(f"must be a list of {least} to {most}")

    return check


_id = _bytes(16, 16)
_hash = _bytes(32, 32)
_index = _whole(32)
_number = _whole(32, 1)
_size = _whole(63)
_path = _text(MAX_PATH_BYTES)


class Message(Record):
    """A body. The fields of a subclass are checked in order by its ``checks``."""

    checks: ClassVar[tuple[Check, ...]] = ()

    def encode(self) -> bytes:
        """Raises MisuseError: a field cannot be said."""
        return encode_payload(_plain(self))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Raises MessageError: *body* is not such a message."""
        if len(body) > MAX_BODY_BYTES:
            raise MessageError(f"{cls.__name__} is larger than {MAX_BODY_BYTES} bytes")
        try:
            value = decode_payload(body)
            return cls.take(value)
        except ViolationError as exc:
            raise MessageError(f"{cls.__name__} cannot be read", why=str(exc)) from exc
        except ValueError as exc:
            raise MessageError(f"{cls.__name__} is not as the protocol says", why=str(exc)) from exc

    @classmethod
    def take(cls, value: Any) -> Self:
        """Raises ValueError: *value* is not the map of such a message."""
        if type(value) is not dict:
            raise ValueError(f"{cls.__name__} must be a map")
        if value.keys() != set(cls._fields):
            raise ValueError(f"{cls.__name__} has {', '.join(cls._fields)} and nothing else")
        taken = []
        for name, check in zip(cls._fields, cls.checks, strict=True):
            try:
                taken.append(check(value[name]))
            except ValueError as exc:
                raise ValueError(f"{name} {exc}") from None
        return cls(*taken)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {name: _plain(field) for name, field in value._asdict().items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


class Trouble(Message):
    """Why something was not done: an error of the taxonomy, as the other node tells it."""

    code: str
    what: str
    why: str
    remedy: str
    key: str
    checks: ClassVar[tuple[Check, ...]] = (
        _text(64),
        _text(1024),
        _text(4096),
        _text(1024),
        _text(128),
    )

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


_trouble = _perhaps(Trouble.take)


class Begin(Message):
    """Sender: a transfer begins, or goes on after an interruption. What was under way for it on
    another link is given up by the receiver before it answers.

    ``path``: where to, as the receiver's operator would write it; not looked at when ``expected``,
    the id of a pull, is there. ``into``: a directory to put the entries in, even a single one.
    """

    transfer: bytes
    link: bytes
    path: str
    into: bool
    overwrite: bool
    on_change: str
    priority: int
    expected: bytes | None
    checks: ClassVar[tuple[Check, ...]] = (
        _id,
        _id,
        _path,
        _flag,
        _flag,
        _choice("refuse", "restart"),
        _whole(8),
        _perhaps(_id),
    )


class Begun(Message):
    """``checksum``: of chunks. ``resumed``: the receiver knew the transfer. ``destination``: where
    it writes, for people."""

    trouble: Trouble | None
    checksum: str
    resumed: bool
    destination: str
    checks: ClassVar[tuple[Check, ...]] = (_trouble, _choice("crc32"), _flag, _path)


class Entry(Message):
    """One file or directory. ``path`` is relative to the destination, empty for the destination
    itself. ``identity`` changes when the source does. ``number`` and ``generation`` name the object
    on the link."""

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
    checks: ClassVar[tuple[Check, ...]] = (
        _index,
        _number,
        _index,
        _path,
        _choice("file", "dir"),
        _size,
        _whole(12),
        _signed,
        _flag,
        _chunk_bytes,
        _hash,
    )


class Entries(Message):
    """Sender: the next few. The totals are of all there will be, as far as is known."""

    transfer: bytes
    total_files: int
    total_bytes: int
    entries: list[Entry]
    checks: ClassVar[tuple[Check, ...]] = (_id, _size, _size, _list(Entry.take, MAX_ENTRIES, 1))


class EntryState(Message):
    """``wanted``: the object is expected now, or after :class:`Start` where ``held`` (chunks) is
    not 0. ``done``: it is there. ``refused``: with the trouble."""

    entry: int
    state: str
    held: int
    trouble: Trouble | None
    checks: ClassVar[tuple[Check, ...]] = (
        _index,
        _choice("wanted", "done", "refused"),
        _size,
        _trouble,
    )


class EntriesTaken(Message):
    trouble: Trouble | None
    entries: list[EntryState]
    checks: ClassVar[tuple[Check, ...]] = (_trouble, _list(EntryState.take, MAX_ENTRIES))


class AskHave(Message):
    """Sender: which chunks of an object are held, from chunk ``first`` on?"""

    transfer: bytes
    entry: int
    first: int
    checks: ClassVar[tuple[Check, ...]] = (_id, _index, _size)


class HavePage(Message):
    """``runs``: packed (:mod:`~novacron.dwcp.amst.runs`), of chunks of the whole object. ``leaves``:
    theirs. ``next``: where the next page begins, 0 after the last."""

    trouble: Trouble | None
    runs: bytes
    leaves: bytes
    next: int
    checks: ClassVar[tuple[Check, ...]] = (
        _trouble,
        _bytes(0, 192 * 1024),
        _bytes(0, HAVE_CHUNKS * 4),
        _size,
    )


class Start(Message):
    """Sender: the chunks held are as the source's, but for those in ``drop`` (packed runs); all of
    them are to be dropped when ``drop_all``. The object is expected when this is answered."""

    transfer: bytes
    entry: int
    drop_all: bool
    drop: bytes
    checks: ClassVar[tuple[Check, ...]] = (_id, _index, _flag, _bytes(0, 192 * 1024))


class Outcome(Message):
    trouble: Trouble | None
    checks: ClassVar[tuple[Check, ...]] = (_trouble,)


class FinishObject(Message):
    entry: int
    root: bytes
    checks: ClassVar[tuple[Check, ...]] = (_index, _hash)


class Finish(Message):
    """Sender: these were sent whole; check them against their roots and give them their names."""

    transfer: bytes
    objects: list[FinishObject]
    checks: ClassVar[tuple[Check, ...]] = (_id, _list(FinishObject.take, MAX_ENTRIES, 1))


class FinishedObject(Message):
    entry: int
    trouble: Trouble | None
    checks: ClassVar[tuple[Check, ...]] = (_index, _trouble)


class Finished(Message):
    trouble: Trouble | None
    objects: list[FinishedObject]
    checks: ClassVar[tuple[Check, ...]] = (_trouble, _list(FinishedObject.take, MAX_ENTRIES))


class Drop(Message):
    """Sender: this entry will not come in this attempt, because of the trouble. What there is of
    it stays for another."""

    transfer: bytes
    entry: int
    trouble: Trouble
    checks: ClassVar[tuple[Check, ...]] = (_id, _index, Trouble.take)


class End(Message):
    """Sender: the transfer is over. What is partial stays where it failed, and goes where it was
    cancelled."""

    transfer: bytes
    state: str
    trouble: Trouble | None
    checks: ClassVar[tuple[Check, ...]] = (_id, _choice("done", "failed", "cancelled"), _trouble)


class Control(Message):
    """Receiver: what its operator wants of the sender."""

    transfer: bytes
    action: str
    limit_bps: int
    checks: ClassVar[tuple[Check, ...]] = (
        _id,
        _choice("pause", "resume", "cancel", "limit"),
        _size,
    )


class Pause(Message):
    """Sender: it stopped sending for a while, or goes on."""

    transfer: bytes
    paused: bool
    checks: ClassVar[tuple[Check, ...]] = (_id, _flag)


class Pull(Message):
    """Receiver: send me that. Asked again, it tells of the same transfer."""

    transfer: bytes
    paths: list[str]
    recursive: bool
    on_change: str
    priority: int
    limit_bps: int
    deadline_ms: int
    """Milliseconds from now; 0: none."""
    checks: ClassVar[tuple[Check, ...]] = (
        _id,
        _list(_path, MAX_PATHS, 1),
        _flag,
        _choice("refuse", "restart"),
        _whole(8),
        _size,
        _size,
    )


class OpenStream(Message):
    """A byte stream for *service*: ``number`` carries what the asking side sends, ``back`` what
    comes back. ``window``: bytes that may be unread, in each direction."""

    stream: bytes
    link: bytes
    number: int
    back: int
    window: int
    service: str
    checks: ClassVar[tuple[Check, ...]] = (_id, _id, _number, _number, _whole(32, 65536), _text(64))

from __future__ import annotations

import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst import transfer_messages
from novacron.dwcp.amst.asking import BusyError, check, error_of
from novacron.dwcp.amst.errors import (
    MessageError,
    NoSpaceError,
    SourceChangedError,
    TransferRefusedError,
)
from novacron.dwcp.amst.messages import MAX_BODY_BYTES, Message
from novacron.dwcp.amst.transfer_messages import (
    HAVE_CHUNKS,
    MAX_ENTRIES,
    MAX_RUNS_BYTES,
    Begin,
    Begun,
    Entries,
    EntriesTaken,
    Entry,
    EntryState,
    HavePage,
    Trouble,
    pack,
    unpack,
)

KINDS = [
    kind
    for kind in vars(transfer_messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]
TROUBLE = Trouble(
    "dwcp.no_space", "no room", "5 bytes are free", "free some", "dwcp.amst.directories"
)


def entry(index: int, path: str = "a/b") -> Entry:
    return Entry(index, index + 1, 0, path, "file", 1 << 40, 0o640, -5, True, 1 << 20, bytes(32))


def test_messages_arrive_with_the_messages_in_them() -> None:
    entries = Entries(bytes(16), 5, 6, [entry(0), entry(1)])
    assert unpack(Entries, pack(entries)) == entries
    assert isinstance(unpack(Entries, pack(entries)).entries[0], Entry)
    taken = EntriesTaken(
        None, [EntryState(0, "wanted", 3, None), EntryState(1, "refused", 0, TROUBLE)]
    )
    assert unpack(EntriesTaken, pack(taken)) == taken
    assert unpack(EntriesTaken, pack(taken)).entries[1].trouble == TROUBLE
    begun = Begun(TROUBLE, "crc32", False, "")
    assert unpack(Begun, pack(begun)).trouble == TROUBLE


def test_the_largest_messages_fit_what_a_session_carries() -> None:
    names = "x" * 4096
    full = Entries(bytes(16), 1, 1, [entry(index, names) for index in range(MAX_ENTRIES)])
    assert len(pack(full)) <= MAX_BODY_BYTES
    unpack(Entries, pack(full))
    page = HavePage(None, bytes(MAX_RUNS_BYTES), bytes(HAVE_CHUNKS * 4), 1)
    assert unpack(HavePage, pack(page)) == page


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", "x" * 4097),
        ("kind", "fifo"),
        ("size", -1),
        ("size", 1 << 63),
        ("mode", 0o10000),
        ("mtime_ns", 1 << 63),
        ("number", 0),
        ("number", 1 << 32),
        ("entry", True),
        ("sparse", 1),
        ("chunk_bytes", 65535),
        ("chunk_bytes", 65536 + 512),
        ("chunk_bytes", 8 << 20),
        ("identity", bytes(31)),
    ],
)
def test_an_entry_with_a_field_out_of_range_is_refused(field: str, value: Any) -> None:
    body = {**entry(0)._asdict(), field: value}
    message = {"transfer": bytes(16), "total_files": 0, "total_bytes": 0, "entries": [body]}
    if isinstance(value, int) and value >= 1 << 64:
        return
    with pytest.raises(MessageError, match=field):
        unpack(Entries, msgpack.packb(message))


def test_missing_and_unknown_fields_are_refused() -> None:
    fields = Begin(bytes(16), bytes(16), "x", False, False, "refuse", 1, None)._asdict()
    for name in fields:
        less = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(MessageError, match=name):
            unpack(Begin, msgpack.packb(less))
    with pytest.raises(MessageError, match="nobody knows"):
        unpack(Begin, msgpack.packb({**fields, "more": 1}))


@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_no_bytes_do_anything_but_be_refused_or_taken(kind: type[Message], body: bytes) -> None:
    with contextlib.suppress(MessageError):
        unpack(kind, body)


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.sampled_from(KINDS), st.data())
def test_no_values_do_anything_but_be_refused_or_taken(
    kind: type[Message], data: st.DataObject
) -> None:
    fields = {name: data.draw(json) for name in kind._fields}
    with contextlib.suppress(MessageError):
        taken = unpack(kind, msgpack.packb(fields))
        assert unpack(kind, pack(taken)) == taken


# --- Trouble ----------------------------------------------------------------------------------


def test_an_error_is_the_same_kind_on_the_other_side() -> None:
    told = error_of(TROUBLE, "node-2")
    assert type(told) is NoSpaceError
    assert (told.what, told.why, told.remedy) == ("no room", "5 bytes are free", "free some")
    assert told.key == "dwcp.amst.directories of node node-2"
    busy = error_of(Trouble.of(BusyError("full")), "n")
    assert type(busy) is BusyError
    assert busy.retryable
    with pytest.raises(SourceChangedError):
        check(Trouble.of(SourceChangedError("it changed")), "n")
    check(None, "n")


def test_an_error_of_a_newer_version_is_a_permanent_refusal() -> None:
    told = error_of(TROUBLE._replace(code="dwcp.of_the_future"), "n")
    assert type(told) is TransferRefusedError
    assert not told.retryable


def test_what_is_too_long_to_be_told_is_cut() -> None:
    trouble = Trouble.of(NoSpaceError("ü" * 2000, why="y" * 9000, remedy="z" * 5000, key="k" * 500))
    assert unpack(Begun, pack(Begun(trouble, "crc32", False, ""))).trouble == trouble
    assert trouble.what == "ü" * 512

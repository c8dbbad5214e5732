"""Messages as nodes send them, made up: what the shipped dictionary is trained from.

Every one is packed by the product's own message types, so a dictionary knows the keys, the order and
the ranges that go over the wire. The same seed gives the same messages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.messages import Message
from novacron.dwcp.amst.transfer_messages import (
    MAX_ENTRIES,
    AskHave,
    Begin,
    Begun,
    Control,
    Drop,
    End,
    Entries,
    EntriesTaken,
    Entry,
    EntryState,
    Finish,
    Finished,
    FinishedObject,
    FinishObject,
    HavePage,
    OpenStream,
    Outcome,
    Pause,
    Pull,
    Start,
    Trouble,
    pack,
)

SEED: Final = 108
"""Of the shipped dictionary."""

_TOPS: Final = ("images", "templates", "vm", "snapshots", "backup", "iso", "srv", "pool")
_NAMES: Final = (
    "debian", "ubuntu", "rocky", "windows", "web", "db", "mail", "proxy", "ci", "build", "store",
    "cache", "node", "worker", "router", "gateway", "git", "test", "prod", "dev",
)  # fmt: skip
_ENDINGS: Final = (
    ".qcow2", ".raw", ".img", ".vmdk", ".iso", ".xml", ".json", ".yaml", ".log", ".mem", ".nvram",
    ".conf", ".txt", ".tar.zst", ".sha256", "",
)  # fmt: skip
_TROUBLES: Final = (
    ("dwcp.object_refused", "the file is there already", "it was not asked to be replaced",
     "send it with --overwrite, or to another name", ""),
    ("dwcp.source_changed", "the file changed while it was sent", "its size or time is another one",
     "stop what writes to it, or send a snapshot", ""),
    ("dwcp.target_write", "cannot write the file", "No space left on device",
     "make room, and send it again", "dwcp.amst.directories"),
    ("dwcp.path_denied", "the path is not allowed", "it lies outside of the directories for transfers",
     "name its directory in the configuration", "dwcp.amst.directories"),
    ("dwcp.link_lost", "the link was lost", "no stream could be opened for 30 s", "",
     "dwcp.amst.link_timeout"),
)  # fmt: skip


class _Author:
    """Writes the messages of one transfer after another."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._transfer = b""
        self._number = 1
        self._at_ns = 0

    def transfer(self) -> Iterator[Message]:
        """Its messages, questions and answers, in about the proportions of real ones."""
        rng = self._random
        self._transfer = rng.randbytes(16)
        self._number = rng.randrange(1, 5000)
        self._at_ns = rng.randrange(1_500_000_000, 1_900_000_000) * 10**9
        top = self._directory()
        yield self._begin(top)
        yield Begun(None, "crc32", rng.random() < 0.2, f"/var/lib/novacron/transfers/{top}")
        first = 0
        for _ in range(rng.randrange(1, 5)):
            count = rng.choice((1, 1, 2, 5, 20, MAX_ENTRIES))
            yield from self._page(top, first, count)
            first += count
        yield from self._rarer()
        yield End(self._transfer, "done", None)
        yield Outcome(None)

    def _page(self, top: str, first: int, count: int) -> Iterator[Message]:
        rng = self._random
        entries = [self._entry(top, first + index) for index in range(count)]
        total = first + count + rng.randrange(0, 4000)
        yield Entries(self._transfer, total, total * rng.randrange(1000, 10**9), entries)
        yield EntriesTaken(None, [self._state(entry) for entry in entries])
        for entry in rng.sample(entries, k=min(3, count)):
            yield from self._held(entry)
        files = [entry for entry in entries if entry.kind == "file"]
        if files:
            yield Finish(
                self._transfer, [FinishObject(each.entry, rng.randbytes(32)) for each in files]
            )
            yield Finished(None, [FinishedObject(each.entry, None) for each in files])

    def _begin(self, path: str) -> Message:
        rng = self._random
        pulled = rng.random() < 0.2
        return Begin(
            self._transfer,
            rng.randbytes(16),
            path,
            rng.random() < 0.5,
            rng.random() < 0.3,
            rng.choice(("refuse", "restart")),
            rng.randrange(3),
            self._transfer if pulled else None,
        )

    def _entry(self, top: str, position: int) -> Entry:
        rng = self._random
        self._number += 1
        self._at_ns += rng.randrange(0, 10**11)
        directory = rng.random() < 0.1
        size = 0 if directory else int(2 ** rng.uniform(4, 37))
        return Entry(
            position,
            self._number,
            rng.choice((0, 0, 0, 1)),
            f"{top}/{self._name()}",
            "dir" if directory else "file",
            size,
            0o755 if directory else rng.choice((0o644, 0o644, 0o600, 0o640, 0o755)),
            self._at_ns,
            size > 1 << 20 and rng.random() < 0.7,
            rng.choice((1 << 20, 1 << 20, 1 << 18, 1 << 22)),
            rng.randbytes(32),
        )

    def _state(self, entry: Entry) -> EntryState:
        chance = self._random.random()
        if entry.kind == "dir" or chance < 0.1:
            return EntryState(entry.entry, "done", 0, None)
        if chance < 0.15:
            return EntryState(entry.entry, "refused", 0, self._trouble())
        held = self._random.randrange(entry.size // entry.chunk_bytes + 1) if chance < 0.3 else 0
        return EntryState(entry.entry, "wanted", held, None)

    def _held(self, entry: Entry) -> Iterator[Message]:
        rng = self._random
        yield AskHave(self._transfer, entry.entry, 0)
        count = rng.choice((1, 3, 12, 40))
        held = runs.pack_runs([(0, count)])
        yield HavePage(None, held, rng.randbytes(4 * count), 0)
        dropped = rng.random() < 0.2
        yield Start(self._transfer, entry.entry, False, runs.pack_runs([(0, 1)] if dropped else []))
        yield Outcome(None)

    def _rarer(self) -> Iterator[Message]:
        rng = self._random
        makers: tuple[Callable[[], Message], ...] = (
            lambda: Pause(self._transfer, rng.random() < 0.5),
            lambda: Control(self._transfer, rng.choice(("pause", "resume", "cancel")), 0),
            lambda: Control(self._transfer, "limit", rng.randrange(1, 2000) * 10**6),
            lambda: Drop(self._transfer, rng.randrange(5000), self._trouble()),
            lambda: End(self._transfer, "failed", self._trouble()),
            lambda: Outcome(self._trouble()),
            lambda: Pull(
                self._transfer,
                [f"{self._directory()}/{self._name()}" for _ in range(rng.randrange(1, 4))],
                rng.random() < 0.4,
                "refuse",
                1,
                0,
                0,
                False,
            ),
            lambda: OpenStream(
                self._transfer,
                rng.randbytes(16),
                self._number,
                self._number + (1 << 31),
                rng.choice((1 << 20, 4 << 20)),
                rng.choice(("vm.migration", "vm.console")),
            ),
        )
        for make in rng.sample(makers, k=2):
            yield make()

    def _directory(self) -> str:
        rng = self._random
        return f"{rng.choice(_TOPS)}/{rng.choice(_NAMES)}-{rng.randrange(1, 200)}"

    def _name(self) -> str:
        rng = self._random
        stem = rng.choice(
            (
                f"disk-{rng.randrange(8)}",
                f"{rng.choice(_NAMES)}-{rng.randrange(1, 40)}-amd64",
                f"20{rng.randrange(24, 30)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
                rng.randbytes(8).hex(),
            )
        )
        return stem + rng.choice(_ENDINGS)

    def _trouble(self) -> Trouble:
        return Trouble(*self._random.choice(_TROUBLES))


def messages(count: int, seed: int = SEED) -> list[bytes]:
    """*count* packed messages."""
    author = _Author(seed)
    found: list[bytes] = []
    while len(found) < count:
        found += map(pack, author.transfer())
    return found[:count]

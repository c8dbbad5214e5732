"""What every transfer of a node needs from around it."""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import trio

from novacron.boot.retry import RetryPolicy
from novacron.dwcp.amst.asking import Asking, Links, StoppingError
from novacron.dwcp.amst.errors import TransferLimitError
from novacron.dwcp.amst.paths import Confinement
from novacron.dwcp.amst.store import IncomingStore, OutgoingStore
from novacron.dwcp.amst.transport import Coding
from novacron.dwcp.hde.blocks.library import BlockLibrary

RETRY: Final = RetryPolicy(delay=1.0, factor=2.0, max_delay=30.0, jitter=0.25)
"""Of what was interrupted. A quarter of jitter, so that the transfers of a node that was away do not
come back in step."""
MAX_OPEN: Final = 1024
"""Files of transfers that are open at once, whatever the process may have."""
_ROOM_TIMEOUT: Final = 45.0
"""Seconds; less than the other node waits for its answer."""
T = TypeVar("T")


class TransferSettings(Protocol):
    """What transfers read of the section ``dwcp.amst``."""

    @property
    def directories(self) -> tuple[str, ...]: ...
    @property
    def chunk_bytes(self) -> int: ...
    @property
    def window_bytes(self) -> int: ...
    @property
    def retry_for(self) -> float: ...
    @property
    def keep_partial(self) -> float: ...
    @property
    def max_transfers(self) -> int: ...


class Room:
    """A number of places, taken many at once by those who come first."""

    def __init__(self, places: int) -> None:
        self.free = places
        self._freed = trio.lowlevel.ParkingLot()
        self._turn = trio.Lock()

    async def take(self, count: int) -> None:
        # One after the other: who needs many places is not overtaken for ever by who needs one.
        async with self._turn:
            while self.free < count:
                await self._freed.park()
            self.free -= count

    def give(self, count: int) -> None:
        self.free += count
        self._freed.unpark_all()


class Host:
    """Made by :class:`~novacron.dwcp.amst.transfers.Transfers`."""

    def __init__(
        self,
        asking: Asking,
        links: Links,
        settings: TransferSettings,
        confinement: Confinement,
        outgoing: OutgoingStore,
        incoming: IncomingStore,
        notify: Callable[[], None],
        random: Callable[[], float],
        retry: RetryPolicy,
        coding: Coding,
        blocks: BlockLibrary | None = None,
    ) -> None:
        self.blocks = blocks
        """None: nothing is deduplicated, and files belong to no tenant."""
        self.asking = asking
        self.links = links
        self.settings = settings
        self.confinement = confinement
        self.outgoing = outgoing
        self.incoming = incoming
        self.notify = notify
        self.random = random
        self.retry = retry
        self.coding = coding
        self.nursery: trio.Nursery | None = None
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # A file that is received takes three descriptors: its own, its directory's, its journal's.
        most = MAX_OPEN if soft == resource.RLIM_INFINITY else min(MAX_OPEN, soft // 6)
        self.open_files = Room(max(16, most))
        self.checks = trio.CapacityLimiter(2)
        """Threads that read files back: more would only make disks seek."""

    def start(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Raises StoppingError: the node stops."""
        if self.nursery is None:
            raise StoppingError("no transfers are taken", why="the node stops")
        self.nursery.start_soon(function, *args)

    async def shelter(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run *function* to its end also where the caller is cancelled, as those are who answer a
        peer whose session ends: they would leave a file half opened."""
        done = trio.Event()
        result: list[T] = []
        failure: list[BaseException] = []

        async def run() -> None:
            try:
                result.append(await function(*args))
            except Exception as exc:
                failure.append(exc)
            finally:
                done.set()

        self.start(run)
        await done.wait()
        if failure:
            raise failure[0]
        if not result:
            raise StoppingError("no transfers are taken", why="the node stops")
        return result[0]

    async def take_files(self, count: int) -> None:
        """Raises TransferLimitError: the node has as many files open as it may."""
        with trio.move_on_after(_ROOM_TIMEOUT) as scope:
            await self.open_files.take(count)
        if scope.cancelled_caught:
            raise TransferLimitError(
                "too many files are being received",
                why=f"a place for {count} more was not found within {_ROOM_TIMEOUT:g} s",
                remedy="send fewer at once, or raise the limit of open files of the node's process",
            )

"""Who is reading a key, or waits for it to change, and has to learn that it did."""

from __future__ import annotations

import trio


class Watch:
    """One key, from :meth:`Watches.open` on."""

    __slots__ = ("changed", "event", "users")

    def __init__(self) -> None:
        self.users = 0
        self.changed = False
        self.event: trio.Event | None = None

    def note(self) -> None:
        self.changed = True
        if self.event is not None:
            self.event.set()

    async def wait(self) -> None:
        """Return when it has changed since this watch was opened."""
        if not self.changed:
            if self.event is None:
                self.event = trio.Event()
            await self.event.wait()


class Watches:
    """Those that are open. Whoever opens one closes it."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}

    def open(self, key: str) -> Watch:
        """For changes from now on."""
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = Watch()
        watch.users += 1
        return watch

    def close(self, key: str, watch: Watch) -> None:
        watch.users -= 1
        if not watch.users and self._watches.get(key) is watch:
            del self._watches[key]

    def note(self, key: str) -> None:
        """*key* has changed. Who opens a watch after this looks at what it is now."""
        watch = self._watches.pop(key, None)
        if watch is not None:
            watch.note()

    def note_all(self) -> None:
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.note()

    def __len__(self) -> int:
        return len(self._watches)

"""One task makes a value; whoever wants the same one meanwhile waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Flight:
    """A value that is being made, and those who wait for it."""

    __slots__ = ("done", "failure", "value")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: bytes | None = None
        self.failure: Exception | None = None


class Flights:
    """At most one :class:`Flight` for a key, unless the key changes on the way: those who ask after
    a change must not get what was begun before it."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def forget(self, key: str) -> None:
        """*key* has changed: the flight under way, if there is one, is for those who wait already."""
        self._flights.pop(key, None)

    def clear(self) -> None:
        """Like :meth:`forget` for every key."""
        self._flights.clear()

    def current(self, key: str, flight: Flight) -> bool:
        """Whether *key* has not changed since *flight* began."""
        return self._flights.get(key) is flight

    async def run(
        self,
        key: str,
        find: Callable[[str], bytes | None],
        make: Callable[[Flight], Awaitable[bytes]],
    ) -> bytes:
        """What *find* finds, or else what *make* makes: here, or in a flight that is under way.

        Those who wait get its value or its exception. When the caller that made it was cancelled,
        whoever of them wakes first makes it in turn.
        """
        while True:
            value = find(key)
            if value is not None:
                return value
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, make)
            await flight.done.wait()
            if flight.failure is not None:
                raise flight.failure
            if flight.value is not None:
                return flight.value

    async def _lead(self, key: str, make: Callable[[Flight], Awaitable[bytes]]) -> bytes:
        flight = self._flights[key] = Flight()
        try:
            flight.value = await make(flight)
            return flight.value
        except Exception as error:
            flight.failure = error
            raise
        finally:
            if self.current(key, flight):
                del self._flights[key]
            flight.done.set()

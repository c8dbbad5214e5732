"""What Redis still has to be told."""

from __future__ import annotations

from typing import Final

from novacron.cache.redis_language import Language
from novacron.cache.redis_link import Link, now
from novacron.cache.store import CacheAwayError

MOST_OWED: Final = 10_000
"""Keys that are remembered to be deleted; with more, everything is."""
_AT_ONCE: Final = 500
_CLEAR_TIMEOUT: Final = 30.0
"""Seconds the walk through all keys may take; each of its steps, what any call may."""


class Debts:
    """The keys that changed while Redis could not be told, or without knowing whether it was.

    They are deleted there, not set: what they had become may have been replaced since. *timeout* is
    the seconds one call may take.
    """

    def __init__(self, language: Language, timeout: float) -> None:
        self._language = language
        self._timeout = timeout
        self._keys: dict[str, None] = {}
        self._everything = False

    def __bool__(self) -> bool:
        return self._everything or bool(self._keys)

    def owe(self, key: str) -> None:
        if len(self._keys) < MOST_OWED:
            self._keys[key] = None
        else:
            self.owe_everything()

    def owe_everything(self) -> None:
        self._everything = True
        self._keys.clear()

    async def pay(self, link: Link) -> None:
        """Return when nothing is owed; there may be again after any checkpoint.

        Raises:
          CacheUnavailableError: what is left is owed on.
        """
        while self:
            everything, self._everything = self._everything, False
            keys = list(self._keys)[:_AT_ONCE]
            for key in keys:
                del self._keys[key]
            try:
                if everything:
                    await self.clear(link)
                else:
                    await link.calls(
                        *(self._language.delete(key) for key in keys), within=self._timeout
                    )
            except BaseException:
                self._everything = self._everything or everything
                for key in keys:
                    self.owe(key)
                raise

    async def clear(self, link: Link) -> None:
        """Remove every key of the prefix.

        Raises:
          CacheUnavailableError: some may be left.
        """
        cursor = b"0"
        give_up = now() + _CLEAR_TIMEOUT
        while True:
            cursor, names = await link.call(*self._language.scan(cursor), within=self._timeout)
            names = [name for name in names if name != self._language.marker]
            if names:
                await link.call(b"UNLINK", *names, within=self._timeout)
            if cursor == b"0":
                break
            if now() > give_up:
                raise CacheAwayError(
                    "the cache was not cleared",
                    why=f"going through the keys of Redis took more than {_CLEAR_TIMEOUT:g} s",
                    remedy="give the cluster a database of its own",
                    key="cache.redis.database",
                )
        if self._language.publishing:
            await link.call(*self._language.tell_all(), within=self._timeout)

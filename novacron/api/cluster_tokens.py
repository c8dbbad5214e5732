"""API tokens that every node of a cluster takes: kept in the shared database, looked up through the cache.

``ncc_<id>_<secret>``, of which the database holds a SHA-256 hash. The letter tells them from a node's
own tokens, so that a call with one of those never waits for a database.

What was read is kept in this process alone, for ``security.cluster_token_seconds`` (the bound). The
shared cache holds, under the token's id, no more than a fingerprint of what was read: as long as it is
there and the same, nobody has changed the token since. A revocation deletes it, and every node reads
again. So whoever can write to the cache can make a node ask the database once more, or keep a token
alive that was revoked, until the bound; he cannot make one up.

Is the database away, tokens that were read within the bound go on working, and others are answered
with 503. Without a shared cache a revocation reaches the other nodes after the bound.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from novacron.api.problems import RateLimitedError
from novacron.api.rate import Buckets, address_key
from novacron.api.token_table import ClusterTokensUnavailableError, TokenStore, TokenTable
from novacron.cache import Loader
from novacron.errors import ApiError, CacheError, ConflictError
from novacron.observe import Counter
from novacron.record import Record
from novacron.security.errors import TokenNotFoundError
from novacron.security.references import register_token
from novacron.security.resources import EVERYTHING, check_patterns
from novacron.security.roles import Principal, Role
from novacron.security.token_record import (
    CLUSTER_PREFIX,
    LONGEST_SECRET,
    CreatedToken,
    Token,
    check_name,
    check_role,
    check_ttl,
    hash_token,
    new_secret,
    rotated,
    split_token,
)

KNOWN_LIMIT: Final = 10_000
"""Tokens kept in this process, about 600 bytes each; the one read longest ago goes first."""
UNKNOWN_SECONDS: Final = 5.0
"""How long an id that was in no database is not asked for again. Ids are random and never come into
being later; the time only bounds what a restored backup would have to wait."""
UNKNOWN_LIMIT: Final = 4096
"""Such ids that are remembered, here and not in the cache, which a guesser must not fill."""
LOOKUP_RATE: Final = 20.0
LOOKUP_BURST: Final = 100
"""Lookups a second, and at once, for each address: a working client needs one for each token in each
bound, and one that guesses must not load the database that the cluster works with."""
REREAD_SECONDS: Final = 1.0
"""How often a token is read again, within the bound, because its secret did not match."""
LOOKUPS_AT_ONCE: Final = 32
"""Lookups of this node under way; more are told to come back rather than pile up behind a database
that is slow."""

_CHECKS = Counter(
    "novacron_cluster_token_checks_total",
    "Cluster tokens that were presented, by outcome.",
    ("outcome",),
)
_LOG = logging.getLogger("novacron.api")


class LookupsLimitedError(RateLimitedError):
    """An address presents more tokens that nobody knows than a client would."""

    code = "api.lookups"


class TokenConflictError(ApiError, ConflictError):
    """Two changed one token of the cluster at the same time."""

    code = "api.token_conflict"


class _UnknownToken(Exception):
    """No token has this id; raised by a loader, so that it is kept by no cache."""


class _Known(Record):
    """What was read of a token, and when, by the monotonic clock."""

    token: Token
    fingerprint: bytes
    read_at: float


class TokenCache(Protocol):
    """What this needs of a :class:`novacron.cache.CacheStore`."""

    async def get(self, key: str) -> bytes | None: ...
    async def delete(self, key: str) -> bool: ...
    async def get_or_load(self, key: str, loader: Loader, *, ttl: float | None = None) -> bytes: ...


class ClusterTokens:
    """
    Args:
      database, cache: Each may not run yet, or not any more; None: there is no cache.
      bound: Seconds.
      now: Seconds since the epoch; what a token's times are compared with.
      clock: Monotonic seconds.
    """

    def __init__(
        self,
        database: TokenStore,
        cache: TokenCache | None,
        bound: float,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = TokenTable(database)
        self._cache = cache
        self._bound = bound
        self._now = now
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._lookups = Buckets(LOOKUP_RATE, LOOKUP_BURST)
        self._running = 0

    # --- Who ------------------------------------------------------------------------------------

    async def authenticate(self, secret: str, source: str) -> Principal | None:
        """Whose token *secret* is; None when it is nobody's, has expired or was revoked.

        Args:
          source: The address it came from, whose lookups are counted.

        Raises:
          ClusterTokensUnavailableError: nothing can be said of it while the database is away.
          LookupsLimitedError: that address asks for too much.
        """
        id = split_token(secret, CLUSTER_PREFIX)
        if id is None:
            return None
        hash = hash_token(secret[:LONGEST_SECRET])
        known = await self._find(id, source)
        if known is not None and known.token.accepts(hash, self._now()) is None:
            # Another node may have given it a new secret, and nobody may be refused for that.
            known = await self._look_again(id, known, source)
        token = known.token if known is not None else None
        now = self._now()
        accepted = token.accepts(hash, now) if token is not None else None
        if token is None or accepted is None:
            _CHECKS.inc("unknown")
            return None
        if not token.usable(now):
            _CHECKS.inc(token.state(now))
            return None
        _CHECKS.inc("accepted" if accepted == "current" else "former")
        return Principal("token", token.id, token.role, token.resources)

    async def _find(self, id: str, source: str) -> _Known | None:
        known = self._fresh(id)
        if known is not None:
            if self._cache is None or await self._vouched(id, known):
                return known
        elif self._unknown.get(id, 0.0) > self._clock():
            return None
        return await self._admitted(source, self._look_up, id)

    async def _look_again(self, id: str, known: _Known, source: str) -> _Known | None:
        if self._clock() - known.read_at < REREAD_SECONDS:
            return known
        return await self._admitted(source, self._read, id)

    async def _admitted(
        self, source: str, look: Callable[[str], Awaitable[_Known]], id: str
    ) -> _Known | None:
        """What *look* finds, if *source* may have something looked up now."""
        self._admit(source)
        self._running += 1
        try:
            return await look(id)
        except _UnknownToken:
            self._note_unknown(id)
            return None
        finally:
            self._running -= 1

    def _fresh(self, id: str) -> _Known | None:
        known = self._known.get(id)
        if known is None or self._clock() - known.read_at < self._bound:
            return known
        del self._known[id]
        return None

    async def _vouched(self, id: str, known: _Known) -> bool:
        """Whether the cache says that *known* is still so; also where the cache cannot say anything,
        for then the bound alone holds."""
        assert self._cache is not None
        try:
            return await self._cache.get(_key(id)) == known.fingerprint
        except CacheError:
            return True

    async def _look_up(self, id: str) -> _Known:
        """Raises:
        _UnknownToken: there is none.
        ClusterTokensUnavailableError: the database is away.
        """
        if self._cache is None:
            return await self._read(id)

        async def load() -> bytes:
            return (await self._read(id)).fingerprint

        try:
            vouched = await self._cache.get_or_load(_key(id), load, ttl=self._bound)
            known = self._fresh(id)
            if known is not None and known.fingerprint == vouched:
                return known
            # Another node vouches for what this one has not read, or not lately.
            known = await self._read(id)
            if known.fingerprint != vouched:
                await self._cache.delete(_key(id))
            return known
        except CacheError:
            return await self._read(id)

    async def _read(self, id: str) -> _Known:
        read_at = self._clock()  # before, so that the bound holds for what is read
        row = await self._table.read(id)
        if row is None:
            self._known.pop(id, None)
            raise _UnknownToken
        known = _Known(row.token, row.fingerprint, read_at)
        self._known[id] = known
        self._known.move_to_end(id)
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)
        return known

    def _admit(self, source: str) -> None:
        wait = self._lookups.take(address_key(source), self._clock())
        if wait > 0:
            raise LookupsLimitedError(
                "too many cluster tokens from one address",
                why=f"it may have {LOOKUP_RATE:g} a second looked up, {LOOKUP_BURST} at once",
                remedy="wait as long as Retry-After says, and use one token for many calls",
                retry_after=wait,
            )
        if self._running >= LOOKUPS_AT_ONCE:
            raise ClusterTokensUnavailableError(
                "cannot check the cluster token now",
                why=f"{LOOKUPS_AT_ONCE} others are being looked up, and the database is slow",
                remedy="try again in a second, or use one of the node's own tokens",
            )

    def _note_unknown(self, id: str) -> None:
        self._unknown[id] = self._clock() + UNKNOWN_SECONDS
        self._unknown.move_to_end(id)
        if len(self._unknown) > UNKNOWN_LIMIT:
            self._unknown.popitem(last=False)

    # --- Changes --------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        role: Role | str,
        ttl: float | None = None,
        resources: Iterable[str] = EVERYTHING,
        *,
        created_by: str,
    ) -> CreatedToken:
        """Make a token that every node takes from now on. *created_by*: as the audit log names
        whoever asked.

        Raises:
          TokenInvalidError, TokenLimitError: as for a node's own.
          ClusterTokensUnavailableError: it could not be kept; it is not valid, or, where the
            connection was lost in the wrong moment, nobody has it.
        """
        role = check_role(role)
        check_name(name)
        check_ttl(ttl)
        narrowed = check_patterns(resources)
        now = self._now()
        id = secrets.token_hex(8)
        secret = new_secret(id, CLUSTER_PREFIX)
        register_token(secret)
        expires = None if ttl is None else now + ttl
        token = Token(id, name, role, hash_token(secret), now, expires, resources=narrowed)
        await self._table.insert(token, created_by)
        return CreatedToken(id, secret)

    async def rotate(self, id: str, grace: float, ttl: float | None = None) -> CreatedToken:
        """Give the token *id* a new secret, which every node takes once it has read it; the old one is
        accepted for *grace* seconds more. With *ttl* it is valid that long from now.

        Raises:
          TokenNotFoundError, TokenInvalidError, TokenLimitError: as for a node's own.
          TokenConflictError: somebody else changed it at the same time.
          ClusterTokensUnavailableError: it may have been changed; ask again.
        """
        row = await self._table.read(id)
        if row is None:
            raise _not_found("rotate", id)
        secret = new_secret(id, CLUSTER_PREFIX)
        made = rotated(row.token, hash_token(secret), self._now(), grace, ttl)
        register_token(secret)
        if not await self._table.replace(row.token, made):
            raise TokenConflictError(
                f"cannot rotate the token {id}",
                why="somebody else rotated or revoked it at the same time",
                remedy="look at it with `novacron token list --cluster`, and try again",
            )
        await self._forget(id, "rotated: they know the new secret")
        return CreatedToken(id, secret)

    async def revoke(self, id: str) -> None:
        """Make the token *id* invalid: durably, and on this node, before this returns; on the others
        as soon as the cache tells them, within the bound at the latest. Twice is harmless.

        Raises:
          TokenNotFoundError: there is none.
          ClusterTokensUnavailableError: it may still be valid; ask again.
        """
        found = await self._table.revoke(id, self._now())
        await self._forget(id, "revoked: they refuse it")
        if not found:
            raise _not_found("revoke", id)

    async def _forget(self, id: str, what: str) -> None:
        """Have every node read *id* again."""
        self._known.pop(id, None)
        if self._cache is None:
            return
        try:
            await self._cache.delete(_key(id))
        except CacheError as exc:
            _LOG.warning(
                "The cache does not tell the other nodes that a token was %s within %g s.",
                what,
                self._bound,
                extra={"token": id, "why": str(exc)},
            )

    async def list(self) -> list[dict[str, Any]]:
        """Every token, oldest first, those that were revoked lately included.

        Raises:
          ClusterTokensUnavailableError: the database is away.
        """
        rows = await self._table.rows()
        now = self._now()
        return [row.token.describe(now) | {"created_by": row.created_by} for row in rows]


def _key(id: str) -> str:
    return f"api-token:{id}"


def _not_found(verb: str, id: str) -> TokenNotFoundError:
    return TokenNotFoundError(
        f"cannot {verb} the token {id[:32]!r}",
        why="neither this node nor the cluster has one with this id",
        remedy="list them with `novacron token list --cluster`",
    )

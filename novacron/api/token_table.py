"""The table of the tokens that every node of a cluster takes, of which it holds hashes alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, Protocol

from novacron.database import Reader
from novacron.database.store import (
    DatabaseLimitError,
    DatabaseTransientError,
    DatabaseUnavailableError,
    Parameters,
)
from novacron.errors import ApiError, DatabaseError, UnavailableError
from novacron.record import Record
from novacron.security.errors import TokenLimitError
from novacron.security.roles import Role
from novacron.security.token_record import Token

TOKEN_LIMIT: Final = 10_000
"""Tokens of a cluster that may be usable at once. Each is read alone; this bounds a list."""
KEEP_DEAD: Final = 30 * 86400.0
"""Seconds an expired or revoked token stays in the list, as a node's own do."""
QUERY_TIMEOUT: Final = 2.0
"""Seconds for one statement here: a call waits for it before it is known whose it is."""

ABSENT: Final = (DatabaseUnavailableError, DatabaseTransientError, DatabaseLimitError)
"""What another attempt may not meet. Everything else the database says is a defect, and shows as one."""

_COLUMNS = "id, name, role, hash, resources, created, created_by, expires, revoked, former"


class ClusterTokensUnavailableError(ApiError, UnavailableError):
    """A cluster token cannot be checked, or changed, while the database is away."""

    code = "api.cluster_tokens"


class TokenStore(Reader, Protocol):
    """What this needs of a :class:`novacron.database.Store`."""

    async def execute(
        self, sql: str, parameters: Parameters | None = None, *, within: float | None = None
    ) -> int: ...


class TokenRow(Record):
    """What the table says of a token."""

    token: Token
    created_by: str
    fingerprint: bytes
    """Of all of it: another one as soon as anything changes."""


class TokenTable:
    """Each method raises ClusterTokensUnavailableError while the database is away."""

    def __init__(self, database: TokenStore) -> None:
        self._database = database

    async def read(self, id: str) -> TokenRow | None:
        try:
            row = await self._database.fetch_one(
                f"SELECT {_COLUMNS} FROM api_token WHERE id = :id",
                {"id": id},
                within=QUERY_TIMEOUT,
            )
        except ABSENT as exc:
            raise unavailable("check the cluster token", exc) from exc
        return None if row is None else _read(row)

    async def insert(self, token: Token, created_by: str) -> None:
        """Keep *token*, and forget those that have been dead for long.

        Raises:
          TokenLimitError: there are too many.
        """
        database = self._database
        now = token.created
        try:
            await database.execute(
                "DELETE FROM api_token WHERE revoked < :horizon OR expires < :horizon",
                {"horizon": now - KEEP_DEAD},
                within=QUERY_TIMEOUT,
            )
            row = await database.fetch_one(
                "SELECT count(*) FROM api_token WHERE revoked IS NULL"
                " AND (expires IS NULL OR expires > :now)",
                {"now": now},
                within=QUERY_TIMEOUT,
            )
            if row is not None and row[0] >= TOKEN_LIMIT:
                raise TokenLimitError(
                    "cannot make the token",
                    why=f"the cluster has {TOKEN_LIMIT} usable ones already",
                    remedy="revoke some with `novacron token revoke --cluster`",
                )
            await database.execute(
                f"INSERT INTO api_token ({_COLUMNS}) VALUES (:id, :name, :role, :hash, :resources,"
                " :created, :created_by, :expires, NULL, '[]')",
                {
                    "id": token.id,
                    "name": token.name,
                    "role": token.role.value,
                    "hash": token.hash.hex(),
                    "resources": json.dumps(list(token.resources)),
                    "created": now,
                    "created_by": created_by,
                    "expires": token.expires,
                },
                within=QUERY_TIMEOUT,
            )
        except ABSENT as exc:
            raise unavailable("make the token", exc) from exc

    async def replace(self, before: Token, after: Token) -> bool:
        """Keep the secret and the times of *after*; False, and nothing is changed, where *before* is
        not what is kept any more."""
        former = [[hash.hex(), until] for hash, until in after.former]
        try:
            changed = await self._database.execute(
                "UPDATE api_token SET hash = :hash, expires = :expires, former = :former"
                " WHERE id = :id AND hash = :before AND revoked IS NULL",
                {
                    "id": after.id,
                    "before": before.hash.hex(),
                    "hash": after.hash.hex(),
                    "expires": after.expires,
                    "former": json.dumps(former),
                },
                within=QUERY_TIMEOUT,
            )
        except ABSENT as exc:
            raise unavailable("rotate the token", exc) from exc
        return changed > 0

    async def revoke(self, id: str, now: float) -> bool:
        """Note that *id* is not valid any more, durably; whether there is such a token."""
        try:
            changed = await self._database.execute(
                "UPDATE api_token SET revoked = COALESCE(revoked, :now) WHERE id = :id",
                {"now": now, "id": id},
                within=QUERY_TIMEOUT,
            )
        except ABSENT as exc:
            raise unavailable("revoke the token", exc) from exc
        return changed > 0

    async def rows(self) -> list[TokenRow]:
        """Every token, oldest first."""
        try:
            found = await self._database.fetch_all(
                f"SELECT {_COLUMNS} FROM api_token ORDER BY created, id",
                limit=2 * TOKEN_LIMIT,
                within=2 * QUERY_TIMEOUT,
            )
        except ABSENT as exc:
            raise unavailable("list the tokens", exc) from exc
        return [_read(row) for row in found]


def _read(row: tuple[Any, ...]) -> TokenRow:
    id, name, role, hash, resources, created, created_by, expires, revoked, former = row
    token = Token(
        id,
        name,
        Role(role),
        bytes.fromhex(hash),
        created,
        expires,
        revoked,
        tuple(json.loads(resources)),
        tuple((bytes.fromhex(known), until) for known, until in json.loads(former)),
    )
    return TokenRow(token, created_by, hashlib.sha256(json.dumps(row).encode()).digest())


def unavailable(doing: str, error: DatabaseError) -> ClusterTokensUnavailableError:
    return ClusterTokensUnavailableError(
        f"cannot {doing} now",
        why=f"tokens of the cluster are in the database: {error.what}"
        + (f" ({error.why})" if error.why else ""),
        remedy="try again when the database is back; a node's own tokens (`novacron token create` on "
        "it) work without",
        key="database.engine",
    )

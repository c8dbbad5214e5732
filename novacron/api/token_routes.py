"""The handlers of ``/api/v1/tokens``: the node's own and, where nodes share a database, the cluster's.
Imports FastAPI, as ``routes.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request

from novacron.api.access import caller
from novacron.api.entry import Entry, NotHereError
from novacron.api.parameters import (
    ROTATION_REQUEST,
    TOKEN_ID,
    TOKEN_REQUEST,
    RotationRequest,
    TokenRequest,
    read_body,
)
from novacron.component import JsonObject
from novacron.errors import UnavailableError
from novacron.security.errors import TokenNotFoundError

if TYPE_CHECKING:
    from novacron.api.cluster_tokens import ClusterTokens
    from novacron.api.services import Services


class TokenRoutes:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def tokens(self) -> JsonObject:
        """Every token of this node and of its cluster, the ones revoked lately included; never a
        secret. While the database is away, those of this node, and why there are no others."""
        own = self._services.security.tokens.list()
        answer: JsonObject = {"tokens": [token | {"scope": "node"} for token in own]}
        if self._services.cluster_tokens is not None:
            try:
                shared = await self._services.cluster_tokens.list()
            except UnavailableError as exc:
                answer["cluster_unavailable"] = str(exc)
            else:
                answer["tokens"] += [token | {"scope": "cluster"} for token in shared]
        return answer

    async def create(self, request: Request) -> JsonObject:
        """Make a token. Its secret is in this answer and nowhere else."""
        wanted = read_body(TokenRequest, await request.body())
        shared = self._services.cluster_tokens
        scope = wanted.scope or ("node" if shared is None else "cluster")
        if scope == "node":
            created = await self._services.security.tokens.create(
                wanted.name, wanted.role, wanted.ttl, wanted.resources
            )
        else:
            principal = caller(request)
            created = await self._shared.create(
                wanted.name,
                wanted.role,
                wanted.ttl,
                wanted.resources,
                created_by=f"{principal.kind}:{principal.name}",
            )
        request.state.target = created.id
        return {
            "id": created.id,
            "secret": created.secret,
            "role": wanted.role,
            "resources": wanted.resources,
            "scope": scope,
        }

    async def revoke(self, request: Request) -> JsonObject:
        """Make a token invalid: on this node from the next call on, on the others of its cluster
        within security.cluster_token_seconds at the latest."""
        id = TOKEN_ID.read(request)
        request.state.target = id
        try:
            await self._services.security.tokens.revoke(id)
            scope = "node"
        except TokenNotFoundError:
            if self._services.cluster_tokens is None:
                raise
            await self._services.cluster_tokens.revoke(id)
            scope = "cluster"
        return {"id": id, "state": "revoked", "scope": scope}

    async def rotate(self, request: Request) -> JsonObject:
        """Give a token, of this node or of its cluster, a new secret, which is in this answer and
        nowhere else. The old one is accepted until the grace is over, so that nobody is refused
        meanwhile."""
        id = TOKEN_ID.read(request)
        request.state.target = id
        wanted = read_body(RotationRequest, await request.body() or b"{}")
        try:
            created = await self._services.security.tokens.rotate(id, wanted.grace, wanted.ttl)
        except TokenNotFoundError:
            if self._services.cluster_tokens is None:
                raise
            created = await self._services.cluster_tokens.rotate(id, wanted.grace, wanted.ttl)
        return {"id": id, "secret": created.secret, "grace": wanted.grace}

    def table(self) -> list[Entry]:
        return [
            Entry("GET", "/tokens", self.tokens),
            Entry("POST", "/tokens", self.create, body=TOKEN_REQUEST, status=201),
            Entry("DELETE", "/tokens/{id}", self.revoke, (TOKEN_ID,)),
            Entry("POST", "/tokens/{id}/rotate", self.rotate, (TOKEN_ID,), body=ROTATION_REQUEST),
        ]

    @property
    def _shared(self) -> ClusterTokens:
        shared = self._services.cluster_tokens
        if shared is None:
            raise NotHereError(
                "there are no tokens of a cluster",
                why="this node shares no database with others",
                remedy="set database.engine to postgresql, or make a token of this node",
                key="database.engine",
            )
        return shared

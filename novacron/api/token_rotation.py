"""The handler that gives a token a new secret. Imports FastAPI, as ``routes.py``."""

from __future__ import annotations

from fastapi import Request

from novacron.api.entry import Entry
from novacron.api.parameters import ROTATION_REQUEST, TOKEN_ID, RotationRequest, read_body
from novacron.api.services import Services
from novacron.component import JsonObject


class TokenRotation:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def rotate(self, request: Request) -> JsonObject:
        """Give a token of this node a new secret, which is in this answer and nowhere else. The old
        one is accepted until the grace is over, so that nobody is refused meanwhile."""
        id = TOKEN_ID.read(request)
        request.state.target = id
        wanted = read_body(RotationRequest, await request.body() or b"{}")
        tokens = self._services.security.tokens
        created = await tokens.rotate(id, wanted.grace, wanted.ttl)
        return {"id": id, "secret": created.secret, "grace": wanted.grace}

    def table(self) -> list[Entry]:
        return [
            Entry("POST", "/tokens/{id}/rotate", self.rotate, (TOKEN_ID,), body=ROTATION_REQUEST)
        ]

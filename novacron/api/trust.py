"""The routes by which nodes join and certificates are looked after."""

from __future__ import annotations

from typing import Final

import trio
from fastapi import Request

from novacron.api.entry import Entry, NotHereError
from novacron.api.parameters import JOIN_REQUEST, JoinRequest, read_body
from novacron.api.services import Services
from novacron.component import JsonObject
from novacron.errors import ApiError, InvalidError
from novacron.security import Principal, documents

_EVERYWHERE: Final = frozenset(("0.0.0.0", "::", "[::]"))


class ClearTextError(ApiError, InvalidError):
    """A join token came over a connection that anybody can read."""

    code = "api.clear_text"


class TrustRoutes:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def join(self, request: Request) -> JsonObject:
        """Let a node join: a certificate for its request, in exchange for its join token. Repeating
        the request with the same key has the same answer, until the token expires."""
        principal: Principal = request.state.principal
        security = self._services.security
        if request.url.scheme != "https":
            # Whoever listens has it now.
            await trio.to_thread.run_sync(security.join_tokens.revoke_blocking, principal.name)
            raise ClearTextError(
                "the join is refused",
                why="its token came over a connection without TLS, and is revoked therefore",
                remedy="set api.tls to on here, and make another token",
                key="api.tls",
            )
        wanted = read_body(JoinRequest, await request.body())
        issuer = security.issuer()
        grant = await trio.to_thread.run_sync(issuer.join, principal.name, wanted.csr.encode())
        request.state.target = f"node:{grant.node_id}"
        return {
            **grant._asdict(),
            "left_out": list(grant.left_out),
            "not_after": documents.to_text(grant.not_after),
            "revocations": security.certificates.revocations.current.pem.decode(),
            "authority_node": self._services.identity.node_id,
            "peer": self._peer_address(),
            "time": documents.to_text(security.now()),
        }

    async def renew(self) -> JsonObject:
        """Take a new certificate into use now: issued here where the node holds its authority's key,
        else by a peer."""
        trust = self._services.trust
        if trust is None:
            raise NotHereError("no certificate is renewed", why="this node runs without trust")
        await trust.renew()
        material = self._services.security.certificates.material
        return {"serial": material.serial, "not_after": documents.to_text(material.not_after)}

    def _peer_address(self) -> str:
        """Where other nodes reach this one; only the port where it listens on every address."""
        given = self._services.configuration.settings.network.advertise_address
        address = given or self._services.node.addresses.get("peer", "")
        host, colon, port = address.rpartition(":")
        return colon + port if host in _EVERYWHERE else address

    def table(self) -> list[Entry]:
        return [
            Entry("POST", "/join", self.join, body=JOIN_REQUEST),
            Entry("POST", "/certificate/renew", self.renew),
        ]

"""The join tokens that an authority's node has given out: ``secrets/join-tokens.json``.

Apart from the API tokens, since these name no caller: one is used up by the first key it lets in.
The node and ``novacron token`` change the file under a lock, and each starts from what is on disk.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.environment.identity import UUID
from novacron.errors import SecurityError
from novacron.observe import Counter
from novacron.security import documents
from novacron.security.errors import (
    JoinTokenError,
    TokenInvalidError,
    TokenLimitError,
    TokenNotFoundError,
    storage_failure,
)
from novacron.security.filelock import held
from novacron.security.join_token import (
    JoinToken,
    from_document,
    hash_secret,
    id_of,
    new_secret,
)
from novacron.security.references import register_token
from novacron.security.roles import Principal, Role
from novacron.security.token_record import check_name

LONGEST_TTL = 30 * 86400.0
"""Seconds. A token that lies about for longer is one that nobody remembers."""
DEFAULT_TTL = 600.0
LIMIT = 1000
"""Usable ones at once."""
GUESSES = 10
"""Wrong secrets for one id, after which that token is void while this process lives. Guessing 256
bits is hopeless; it is so that somebody who tries is noticed."""
_KEEP_DEAD = 30 * 86400.0
_NO_HASH = b"\0" * 32

_CHECKS = Counter(
    "novacron_join_token_checks_total", "Join tokens that were presented, by outcome.", ("outcome",)
)


class JoinTokens:
    """Methods that end in ``_blocking`` belong in a worker thread."""

    def __init__(self, directory: DataDirectory, *, now: Callable[[], float] = time.time) -> None:
        self.path = directory.secrets / "join-tokens.json"
        self._lock_path = directory.secrets / "join-tokens.lock"
        self._now = now
        # One value, since the event loop and a worker thread may replace it at the same time: what
        # was read and the stamp of another file must never be taken for a pair.
        self._known: tuple[dict[str, JoinToken], documents.Stamp | None] = ({}, None)
        self._guesses: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"JoinTokens({len(self._known[0])})"

    # --- Use ------------------------------------------------------------------------------------

    def authenticate(self, secret: str) -> Principal:
        """Whose join token *secret* is. A used one passes: its key may repeat its request, which
        :meth:`claim_blocking` decides. Costs a ``stat``, and a read when the file has changed.

        Raises:
          JoinTokenError: it lets nobody in. Only who knows the secret is told why.
        """
        tokens = self._present()
        id = id_of(secret)
        token = tokens.get(id) if id is not None else None
        expected = token.hash if token is not None else _NO_HASH
        matches = hmac.compare_digest(hash_secret(secret[:256]), expected)
        if token is None or not matches:
            _CHECKS.inc("unknown")
            if token is not None:
                self._guesses[token.id] = self._guesses.get(token.id, 0) + 1
            raise _refused("this node has given out no such token", NEW_TOKEN)
        if self._guesses.get(token.id, 0) >= GUESSES:
            _CHECKS.inc("guessed")
            raise _refused(
                f"somebody has tried {GUESSES} wrong secrets for it, so that it is void", NEW_TOKEN
            )
        self._check_alive(token)
        _CHECKS.inc("accepted")
        register_token(secret)
        return Principal("join", token.id, Role.JOIN)

    def claim_blocking(self, id: str, node_id: str, key: str) -> JoinToken:
        """Use the token *id* up for the public key whose hash is *key*, durably, before this
        returns: of two who come at once one is refused. Again with the same key and node is
        harmless.

        Raises:
          JoinTokenError: it has expired, was revoked, is for another node, or was used.
          StorageFailedError: that it was used cannot be kept; it was not.
        """
        with held(self._lock_path):
            tokens = self._read()
            token = tokens.get(id)
            if token is None:
                raise _refused("this node has given out no such token", NEW_TOKEN)
            self._check_alive(token)
            if token.node_id is not None and token.node_id != node_id:
                raise _refused(
                    f"it is for node {token.node_id}, and node {node_id} asks",
                    "make one for this node: `novacron token create --role node --node-id "
                    f"{node_id}`",
                )
            if token.used is not None:
                if hmac.compare_digest(token.used_key, key) and token.used_by == node_id:
                    return token
                raise _refused(
                    f"it was used already, by node {token.used_by} at "
                    f"{documents.to_text(token.used)}",
                    "make another one; if that node is none of yours, take its certificate away: "
                    f"`novacron certificate revoke {token.used_by}`",
                )
            claimed = token._replace(used=self._now(), used_by=node_id, used_key=key)
            self._replace({**tokens, id: claimed})
            return claimed

    def knows(self, id: str) -> bool:
        return id in self._present()

    def bound_to(self, id: str) -> str | None:
        """The only node that the token *id* lets in; None for any."""
        token = self._present().get(id)
        return token.node_id if token is not None else None

    def _check_alive(self, token: JoinToken) -> None:
        now = self._now()
        if token.revoked is not None:
            _CHECKS.inc("revoked")
            raise _refused(f"it was revoked at {documents.to_text(token.revoked)}", NEW_TOKEN)
        if now >= token.expires:
            _CHECKS.inc("expired")
            raise _refused(
                f"it expired at {documents.to_text(token.expires)}, and the clock of the "
                f"authority's node says {documents.to_text(now)}",
                NEW_TOKEN,
            )

    # --- Change ---------------------------------------------------------------------------------

    def create_blocking(
        self, name: str = "", ttl: float = DEFAULT_TTL, node_id: str | None = None
    ) -> tuple[str, str]:
        """Make a token; returns its id and its secret, which nothing gives a second time.

        Raises:
          TokenInvalidError: an argument makes no sense.
          TokenLimitError: there are too many.
          StorageFailedError: it could not be kept; it is not valid.
        """
        name = name or "a node"
        check_name(name)
        if not 1 <= ttl <= LONGEST_TTL:
            raise TokenInvalidError(
                "cannot make the join token",
                why="its time to live is not between 1 second and 30 days",
                remedy="choose minutes: it is needed once",
            )
        if node_id is not None and UUID.fullmatch(node_id) is None:
            raise TokenInvalidError(
                "cannot make the join token",
                why=f"{node_id[:64]!r} is no node's id",
                remedy="give the UUID in the other node's identity.json, or none for any node",
            )
        now = self._now()
        with held(self._lock_path):
            tokens = self._read()
            if sum(token.state(now) == "active" for token in tokens.values()) >= LIMIT:
                raise TokenLimitError(
                    "cannot make the join token",
                    why=f"there are {LIMIT} usable ones already",
                    remedy="revoke some with `novacron token revoke`",
                )
            id = secrets.token_hex(8)
            secret = new_secret(id)
            register_token(secret)
            token = JoinToken(id, name, hash_secret(secret), now, now + ttl, node_id)
            self._replace({**tokens, id: token})
        return id, secret

    def revoke_blocking(self, id: str) -> None:
        """Twice is harmless.

        Raises:
          TokenNotFoundError: there is no such join token.
          StorageFailedError: that could not be kept; the token is still valid.
        """
        with held(self._lock_path):
            tokens = self._read()
            token = tokens.get(id)
            if token is None:
                raise TokenNotFoundError(
                    f"cannot revoke the token {id[:32]!r}",
                    why="there is no token with this id",
                    remedy="list them with `novacron token list`",
                )
            if token.revoked is None:
                self._replace({**tokens, id: token._replace(revoked=self._now())})

    def void_before_blocking(self, moment: float) -> int:
        """Revoke those that can still be used and were made before *moment*; returns how many.

        Raises:
          StorageFailedError: that could not be kept; they are still valid.
        """
        with held(self._lock_path):
            tokens, now = self._read(), self._now()
            voided = {
                id: token._replace(revoked=now)
                for id, token in tokens.items()
                if token.created < moment and token.state(now) == "active"
            }
            if voided:
                self._replace({**tokens, **voided})
            return len(voided)

    def list(self) -> list[dict[str, Any]]:
        """Every join token, oldest first, those that died lately included."""
        tokens = self._present()
        now = self._now()
        ordered = sorted(tokens.values(), key=lambda token: (token.created, token.id))
        return [{**token.describe(now), "resources": ["*"]} for token in ordered]

    # --- The file -------------------------------------------------------------------------------

    def _present(self) -> dict[str, JoinToken]:
        if documents.stamp(self.path) == self._known[1]:
            return self._known[0]
        try:
            return self._read()
        except SecurityError:
            # Nobody joins with what cannot be read; who makes the next one is told.
            return {}

    def _read(self) -> dict[str, JoinToken]:
        """The tokens as they are on disk, which is what a change starts from."""
        stamp = documents.stamp(self.path)
        try:
            body = documents.decode(self.path.read_bytes())
            if body.get("version") != 1:
                raise ValueError("its version is not 1")
            tokens = {token.id: token for token in map(from_document, body.get("tokens", ()))}
        except FileNotFoundError:
            tokens, stamp = {}, None
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        except ValueError as exc:
            raise TokenInvalidError(
                f"cannot read the join tokens {self.path}",
                why=str(exc),
                remedy="move the file away: the tokens in it are void then, and new ones can be "
                "made",
            ) from exc
        self._known = (tokens, stamp)
        return tokens

    def _replace(self, tokens: dict[str, JoinToken]) -> None:
        horizon = self._now() - _KEEP_DEAD
        kept = {id: token for id, token in tokens.items() if token.expires > horizon}
        body = {"version": 1, "tokens": [token.document() for token in kept.values()]}
        try:
            write_durably(self.path, documents.encode(body), mode=0o600)
        except OSError as exc:
            raise storage_failure("write", self.path, exc) from exc
        self._known = (kept, documents.stamp(self.path))


NEW_TOKEN = "make one with `novacron token create --role node --ttl 10m` on the authority's node"


def _refused(why: str, remedy: str) -> JoinTokenError:
    return JoinTokenError("the join token is refused", why=why, remedy=remedy)

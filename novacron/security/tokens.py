"""API tokens: ``nct_<id>_<secret>``, 256 random bits, of which only a SHA-256 hash is stored.

A plain hash is enough, since there is nothing to guess: stretching (argon2 and its like) is for
secrets that people choose. The prefix lets secret scanners find a token that leaked.

The node and ``novacron token`` change the same file under a lock; the node takes over what the
command line wrote at the next request.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from novacron.data_directory import DataDirectory
from novacron.durable import remove_durably, write_durably
from novacron.observe import Counter
from novacron.security import documents
from novacron.security.errors import (
    TokenInvalidError,
    TokenLimitError,
    TokenNotFoundError,
    storage_failure,
)
from novacron.security.filelock import held
from novacron.security.references import read_secret_file, register_token
from novacron.security.resources import EVERYTHING, check_patterns, is_narrowed
from novacron.security.roles import Principal, Role
from novacron.security.token_record import (
    LONGEST_SECRET,
    CreatedToken,
    Token,
    check_grace,
    check_name,
    check_role,
    check_ttl,
    hash_token,
    new_secret,
    rotated,
    split_token,
)

TOKEN_LIMIT = 1000
"""Tokens that may be usable at once. All are read at each change; this keeps that below 1 ms."""
_KEEP_DEAD = 30 * 86400.0
"""Seconds an expired or revoked token stays in the list, so that an operator still finds it."""
_NOBODY = Token("", "", Role.VIEWER, b"\0" * 32, 0.0, None)
VERSIONS = (1, 2)
"""Of the file. The second is written once a token is narrowed: a release that knows the first alone
would take a narrowed token for one that is not, and must refuse the file instead."""

_LOG = logging.getLogger("novacron.security")
_CHECKS = Counter(
    "novacron_token_checks_total", "Tokens that were presented, by outcome.", ("outcome",)
)


# Named here, because inside the class below ``list`` is a method.
Warnings = list[str]
Descriptions = list[dict[str, Any]]


class Tokens:
    """The tokens of a node. Methods that end in ``_blocking`` belong in a worker thread."""

    def __init__(self, directory: DataDirectory, *, now: Callable[[], float] = time.time) -> None:
        self.path = directory.secrets / "tokens.json"
        self.admin_path = directory.secrets / "admin.token"
        self._directory = directory
        self._lock_path = directory.secrets / "tokens.lock"
        self._now = now
        # One value: a worker thread changes tokens while the loop may be reading the file.
        self._known: tuple[dict[str, Token], documents.Stamp | None] = ({}, None)
        self._complained: documents.Stamp | Literal[False] | None = False
        self._registered: set[bytes] = set()

    def __repr__(self) -> str:
        return f"Tokens({len(self._known[0])})"

    # --- Life -----------------------------------------------------------------------------------

    def open_blocking(self, *, create: bool = True) -> tuple[bool, Warnings]:
        """Read the tokens; the first boot makes one for the administrator.

        The token's file is written before its hash: a crash between the two leaves a file that the
        next boot adopts, never a token nobody knows.

        Returns whether the token was made, and warnings for the operator.

        Raises:
          StorageFailedError: the disk refuses.
          SecretReferenceError: ``secrets/admin.token`` is open to others.
        """
        warnings: Warnings = []
        try:
            self._load()
            return False, warnings
        except FileNotFoundError:
            pass
        except ValueError as exc:
            if not create:
                raise _damaged(self.path, str(exc)) from exc
            where = self._directory.quarantine(self.path)
            warnings.append(
                f"The API tokens were damaged ({exc}) and lie in {where} now: none of them is "
                f"valid any more. A new administrator's token is in {self.admin_path}."
            )
            remove_durably(self.admin_path)
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        if not create:
            return False, warnings
        with held(self._lock_path):
            secret = self._admin_secret()
            id = secret.split("_", 2)[1]
            first = Token(
                id, "first administrator", Role.ADMIN, hash_token(secret), self._now(), None
            )
            self._save({id: first})
        return True, warnings

    def _admin_secret(self) -> str:
        if self.admin_path.exists():
            text = read_secret_file(self.admin_path, key="system.data_dir").decode(
                "ascii", "replace"
            )
            if split_token(text.strip()) is not None:
                register_token(text.strip())
                return text.strip()
        secret = new_secret(secrets.token_hex(8))
        register_token(secret)
        self._write_admin_file(secret)
        return secret

    # --- Use ------------------------------------------------------------------------------------

    def authenticate(self, secret: str) -> Principal | None:
        """Whose token *secret* is; None when it is nobody's, has expired or was revoked.

        Costs a ``stat``, and a read of the file when it has changed.
        """
        self._refresh()
        parts = split_token(secret)
        token = self._known[0].get(parts) if parts is not None else None
        now = self._now()
        digest = hash_token(secret[:LONGEST_SECRET])
        # Also without such a token something is compared: how long it takes tells nothing.
        accepted = (token or _NOBODY).accepts(digest, now)
        if token is None or accepted is None:
            _CHECKS.inc("unknown")
            return None
        if not token.usable(now):
            _CHECKS.inc(token.state(now))
            return None
        # Told apart, so that an operator sees whether a secret that was replaced is still in use.
        _CHECKS.inc("accepted" if accepted == "current" else "former")
        if digest not in self._registered:
            # From now on a log line that quotes a request cannot give it away.
            self._registered.add(digest)
            register_token(secret)
        return Principal("token", token.id, token.role, token.resources)

    def list(self) -> Descriptions:
        """Every token, oldest first, those that were revoked lately included."""
        self._refresh()
        now = self._now()
        ordered = sorted(self._known[0].values(), key=lambda token: (token.created, token.id))
        return [token.describe(now) for token in ordered]

    async def create(
        self,
        name: str,
        role: Role | str,
        ttl: float | None = None,
        resources: Iterable[str] = EVERYTHING,
    ) -> CreatedToken:
        """Make a token that is valid for *ttl* seconds, or until it is revoked, and narrowed to
        *resources*.

        Raises:
          TokenInvalidError: the name, the role, a resource or the time to live makes no sense.
          TokenLimitError: there are too many.
          StorageFailedError: it could not be kept; it is not valid.
        """
        import trio

        return await trio.to_thread.run_sync(self.create_blocking, name, role, ttl, resources)

    async def rotate(self, id: str, grace: float, ttl: float | None = None) -> CreatedToken:
        """Give the token *id* a new secret, durably, before this returns; the old one is accepted
        for *grace* seconds more. With *ttl* it is valid that long from now, else as long as before.

        Raises:
          TokenNotFoundError: there is no such token that is usable.
          TokenInvalidError: one of the two times makes no sense.
          TokenLimitError: it was rotated too often within its grace.
          StorageFailedError: that could not be kept; the token is as it was.
        """
        import trio

        return await trio.to_thread.run_sync(self.rotate_blocking, id, grace, ttl)

    async def revoke(self, id: str) -> None:
        """Make the token *id* invalid, durably, before this returns. Twice is harmless.

        Raises:
          TokenNotFoundError: there is no such token.
          StorageFailedError: that could not be kept; the token is still valid.
        """
        import trio

        await trio.to_thread.run_sync(self.revoke_blocking, id)

    def create_blocking(
        self,
        name: str,
        role: Role | str,
        ttl: float | None = None,
        resources: Iterable[str] = EVERYTHING,
    ) -> CreatedToken:
        role = check_role(role)
        check_name(name)
        check_ttl(ttl)
        narrowed = check_patterns(resources)
        now = self._now()
        with held(self._lock_path):
            tokens = self._fresh()
            if sum(token.usable(now) for token in tokens.values()) >= TOKEN_LIMIT:
                raise TokenLimitError(
                    "cannot make the token",
                    why=f"there are {TOKEN_LIMIT} usable ones already",
                    remedy="revoke some with `novacron token revoke`",
                )
            id = secrets.token_hex(8)
            secret = new_secret(id)
            register_token(secret)
            expires = None if ttl is None else now + ttl
            made = Token(id, name, role, hash_token(secret), now, expires, resources=narrowed)
            self._replace({**tokens, id: made})
        return CreatedToken(id, secret)

    def rotate_blocking(self, id: str, grace: float, ttl: float | None = None) -> CreatedToken:
        check_grace(grace)
        check_ttl(ttl)
        with held(self._lock_path):
            tokens = self._fresh()
            token = tokens.get(id)
            if token is None:
                raise TokenNotFoundError(
                    f"cannot rotate the token {id[:32]!r}",
                    why="there is no token with this id",
                    remedy="list them with `novacron token list`, or make a new one",
                )
            secret = new_secret(id)
            made = rotated(token, hash_token(secret), self._now(), grace, ttl)
            register_token(secret)
            self._replace({**tokens, id: made})
            if self._is_admin_file(id):
                # What the command line of this machine uses. After the hash: until then the old
                # secret in it is the valid one.
                self._write_admin_file(secret)
        return CreatedToken(id, secret)

    def revoke_blocking(self, id: str) -> None:
        with held(self._lock_path):
            tokens = self._fresh()
            token = tokens.get(id)
            if token is None:
                raise TokenNotFoundError(
                    f"cannot revoke the token {id[:32]!r}",
                    why="there is no token with this id",
                    remedy="list them with `novacron token list`",
                )
            if token.revoked is None:
                dead = Token(
                    id,
                    token.name,
                    token.role,
                    token.hash,
                    token.created,
                    token.expires,
                    self._now(),
                    token.resources,
                )
                self._replace({**tokens, id: dead})
            # A file with a token that is no longer valid would only mislead; and should the list
            # be lost, it must not be adopted again.
            self._remove_admin_file(id)

    def _remove_admin_file(self, id: str) -> None:
        if self._is_admin_file(id):
            remove_durably(self.admin_path)

    def _is_admin_file(self, id: str) -> bool:
        try:
            text = self.admin_path.read_text("ascii", "replace").strip()
        except OSError:
            return False
        return split_token(text) == id

    def _write_admin_file(self, secret: str) -> None:
        try:
            write_durably(self.admin_path, secret.encode() + b"\n", mode=0o600)
        except OSError as exc:
            raise storage_failure("write", self.admin_path, exc) from exc

    # --- The file -------------------------------------------------------------------------------

    def _refresh(self) -> None:
        stamp = documents.stamp(self.path)
        if stamp in (self._known[1], self._complained):
            return
        try:
            self._load()
        except (OSError, ValueError) as exc:
            # Keeping what was read before is the safe side: revoked tokens stay revoked.
            self._complained = stamp
            _LOG.error(
                "The API tokens in %s changed and cannot be read; the ones read before stay in "
                "use. Restore the file from a backup.",
                self.path,
                extra={"why": str(exc)},
            )

    def _fresh(self) -> dict[str, Token]:
        """The tokens as they are on disk, which is what a change starts from."""
        try:
            if documents.stamp(self.path) != self._known[1]:
                self._load()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise storage_failure("read", self.path, exc) from exc
        except ValueError as exc:
            raise _damaged(self.path, str(exc)) from exc
        return self._known[0]

    def _load(self) -> None:
        stamp = documents.stamp(self.path)
        body = documents.decode(self.path.read_bytes())
        try:
            if body["version"] not in VERSIONS:
                raise ValueError(f"its version is not {' or '.join(map(str, VERSIONS))}")
            tokens = {}
            for entry in body["tokens"]:
                token = Token(
                    str(entry["id"]),
                    str(entry["name"]),
                    Role(entry["role"]),
                    base64.b64decode(entry["hash"], validate=True),
                    float(entry["created"]),
                    None if entry["expires"] is None else float(entry["expires"]),
                    None if entry["revoked"] is None else float(entry["revoked"]),
                    tuple(map(str, entry["resources"])) if "resources" in entry else EVERYTHING,
                    tuple(
                        (base64.b64decode(former["hash"], validate=True), float(former["until"]))
                        for former in entry.get("former", ())
                    ),
                )
                tokens[token.id] = token
        except (KeyError, TypeError, binascii.Error) as exc:
            raise ValueError("a field is missing or wrong") from exc
        self._known, self._complained = (tokens, stamp), False

    def _replace(self, tokens: dict[str, Token]) -> None:
        horizon = self._now() - _KEEP_DEAD
        self._save(
            {
                id: token
                for id, token in tokens.items()
                if max(token.revoked or 0.0, token.expires or 0.0) > horizon
                or (token.revoked is None and token.expires is None)
            }
        )

    def _save(self, tokens: dict[str, Token]) -> None:
        narrowed = any(is_narrowed(token.resources) for token in tokens.values())
        body = {
            "version": VERSIONS[1] if narrowed else VERSIONS[0],
            "tokens": [token.document() for token in tokens.values()],
        }
        try:
            write_durably(self.path, documents.encode(body), mode=0o600)
        except OSError as exc:
            raise storage_failure("write", self.path, exc) from exc
        self._known = tokens, documents.stamp(self.path)


def _damaged(path: Any, why: str) -> TokenInvalidError:
    return TokenInvalidError(
        f"cannot read the API tokens {path}",
        why=why,
        remedy="restore the file from a backup, or start the node: it sets the file aside and makes "
        "a new administrator's token",
    )

"""What has to happen in Redis in one step, as the Lua scripts that do it there.

A key has two names in Redis: that of its value, and that of the *lease* of whoever is loading it
(after the leases of Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013). A lease holds a
token and does two things. It keeps others from loading the same value: best effort, it expires by
itself. And it tells a loader whether the key was changed since it began: every change removes the
lease in the same step, and what was loaded is kept only while the lease holds the loader's token.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, Final

from novacron.record import Record

# KEYS: value, lease. ARGV: value, milliseconds. A value that has no room takes the one that it was
# to replace with it: a cache may forget, but not serve what its owner has replaced.
_WRITE: Final = """
local done = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if done.err then redis.call('UNLINK', KEYS[1]) end
redis.call('UNLINK', KEYS[2])
TELL
return done
"""

# KEYS: value, lease.
_DELETE: Final = """
local there = redis.call('UNLINK', KEYS[1])
redis.call('UNLINK', KEYS[2])
TELL
return there
"""

# KEYS: value, lease. ARGV: token, milliseconds. Reading the other's lease has the server say when
# it goes.
_CLAIM: Final = """
local value = redis.call('GET', KEYS[1])
if value then return {value, redis.call('PTTL', KEYS[1])} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
redis.call('EXISTS', KEYS[2])
return 0
"""

# KEYS: value, lease. ARGV: token, value, milliseconds.
_KEEP: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local done = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('UNLINK', KEYS[2])
TELL
if done.err then return done end
return 1
"""

# KEYS: value, lease. ARGV: token.
_RELEASE: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[2])
TELL
return 1
"""

# KEYS: value, lease. ARGV: token, milliseconds.
_RENEW: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""

_TELL: Final = "redis.call('PUBLISH', ARGV[#ARGV - 1], ARGV[#ARGV])"
"""Channel and message are the last two arguments."""


class Script(Record):
    source: str
    name: bytes
    """What ``EVALSHA`` knows it by."""


def _script(source: str, publishing: bool) -> Script:
    text = source.replace("TELL", _TELL if publishing else "").strip()
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


Word = str | bytes | int
Words = tuple[Word, ...]

_VALUE: Final = b"v"
_LEASE: Final = b"l"
_ALL: Final = b"*"
"""What a message says has changed; the key follows."""
_LONGEST: Final = 10 * 366 * 86400.0
"""Seconds. Redis counts in milliseconds and refuses what does not fit."""
_WHICH: Final = (b"INFO", b"server")
_RUN: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_GLOB: Final = b"\\*?[]^-"
_ORIGIN_BYTES: Final = 8


class Change(Record):
    key: str
    value: bool
    """Its value, as opposed to its lease."""


class Language:
    """How a cache with this *prefix* says things to Redis.

    With *publishing* a change is made known by a message on :attr:`channel`, otherwise the server
    knows whom to tell. Commands are what to send, not sent.
    """

    def __init__(self, prefix: str, *, publishing: bool) -> None:
        self.publishing = publishing
        self.channel = prefix.encode() + b"changed"
        self._prefix = prefix.encode()
        self.marker = self._prefix + b"server"
        """The key that says which process of a server the other keys were written in."""
        self._values = self._prefix + _VALUE + b":"
        self._leases = self._prefix + _LEASE + b":"
        self._origin = os.urandom(_ORIGIN_BYTES)
        self._write = _script(_WRITE, publishing)
        self._delete = _script(_DELETE, publishing)
        self._claim = _script(_CLAIM, publishing)
        self._keep = _script(_KEEP, publishing)
        self._release = _script(_RELEASE, publishing)
        self._renew = _script(_RENEW, publishing)

    # Commands on one key --------------------------------------------------------------------------

    def read(self, key: str) -> tuple[Words, Words]:
        """Value, and milliseconds it still has."""
        name = self._values + _bytes(key)
        return (b"GET", name), (b"PTTL", name)

    def write(self, key: str, value: bytes, seconds: float) -> Words:
        return self._telling(self._write, _VALUE, key, value, milliseconds(seconds))

    def delete(self, key: str) -> Words:
        return self._telling(self._delete, _VALUE, key)

    def claim(self, key: str, token: bytes, seconds: float) -> Words:
        """Value and milliseconds; or 1: the lease is this token's now; or 0: it is another's."""
        return self._call(self._claim, key, token, milliseconds(seconds))

    def keep(self, key: str, token: bytes, value: bytes, seconds: float) -> Words:
        """1: the value is kept and the lease has ended; 0: it was not the token's any more."""
        return self._telling(self._keep, _VALUE, key, token, value, milliseconds(seconds))

    def release(self, key: str, token: bytes) -> Words:
        return self._telling(self._release, _LEASE, key, token)

    def renew(self, key: str, token: bytes, seconds: float) -> Words:
        return self._call(self._renew, key, token, milliseconds(seconds))

    # Commands on all ------------------------------------------------------------------------------

    def scan(self, cursor: bytes) -> Words:
        """The next names below the prefix."""
        pattern = b"".join(
            b"\\" + bytes([byte]) if byte in _GLOB else bytes([byte]) for byte in self._prefix
        )
        return b"SCAN", cursor, b"MATCH", pattern + b"*", b"COUNT", 1000

    def marked(self) -> Words:
        """Which process the keys are of: a value, see :meth:`mark`."""
        return b"GET", self.marker

    def mark(self, run: bytes) -> Words:
        """The keys are of the process *run*."""
        return b"SET", self.marker, run

    def tell_all(self) -> Words:
        return b"PUBLISH", self.channel, self._origin + _ALL

    def prepare(self, database: int, former: tuple[int, str] | None) -> list[Words]:
        """What a connection is prepared with.

        *former* is the number and the name by which the server knew the last one. It may still hold
        commands that the server has not come to; executed behind those of the new connection, they
        would undo them. So that connection is ended first, with whatever is in it. The name is asked
        for as well because a server that was restarted counts anew.
        """
        commands: list[Words] = [(b"CLIENT SETNAME", b"novacron"), (b"CLIENT INFO",)]
        if former is not None:
            commands.append((b"CLIENT KILL", b"ID", former[0], b"ADDR", former[1]))
        if database:
            commands.append((b"SELECT", database))
        commands += [_WHICH, self.marked()]
        commands += [
            (b"SCRIPT LOAD", script.source)
            for script in (
                self._write,
                self._delete,
                self._claim,
                self._keep,
                self._release,
                self._renew,
            )
        ]
        if self.publishing:
            commands.append((b"SUBSCRIBE", self.channel))
        else:
            # Without NOLOOP, with which the server is silent about a key that it evicts while it
            # executes a command of ours, and forgets that we read it.
            commands.append((b"CLIENT TRACKING", b"ON"))
        return commands

    # What the server says -------------------------------------------------------------------------

    def run_of(self, answers: Mapping[Words, Any]) -> bytes:
        """Which process of the server it is, from what :meth:`prepare` was answered: none is like any
        before it. Empty where the server does not say."""
        found = _RUN.search(bytes(answers[_WHICH]))
        return b"" if found is None else found[1]

    def changes(self, message: list[Any]) -> list[Change] | None:
        """What a push message says has changed, by others as far as that can be told; None: all."""
        if message[0] == b"invalidate":
            if message[1] is None:
                return None
            return [change for name in message[1] if (change := self._of(name)) is not None]
        if message[0] == b"message" and not message[2].startswith(self._origin):
            what, key = (
                message[2][_ORIGIN_BYTES : _ORIGIN_BYTES + 1],
                message[2][_ORIGIN_BYTES + 1 :],
            )
            if what == _ALL:
                return None
            text = _text(key)
            return [] if text is None else [Change(text, what == _VALUE)]
        return []

    def _of(self, name: bytes) -> Change | None:
        for prefix, value in ((self._values, True), (self._leases, False)):
            if name.startswith(prefix):
                text = _text(name[len(prefix) :])
                return None if text is None else Change(text, value)
        return None

    def _call(self, script: Script, key: str, *arguments: bytes | int) -> Words:
        name = _bytes(key)
        names = (self._values + name, self._leases + name)
        return (b"EVALSHA", script.name, 2, *names, *arguments)

    def _telling(self, script: Script, what: bytes, key: str, *arguments: bytes | int) -> Words:
        words = self._call(script, key, *arguments)
        if self.publishing:
            return (*words, self.channel, self._origin + what + _bytes(key))
        return words


def milliseconds(seconds: float) -> int:
    """At least one."""
    return max(1, math.ceil(min(seconds, _LONGEST) * 1000))


def _bytes(key: str) -> bytes:
    # Half a surrogate pair is a key like any other.
    return key.encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str | None:
    """None: it is no node's key, but something else's."""
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None

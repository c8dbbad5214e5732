"""Portable statements as PostgreSQL takes them: ``:name`` to ``$1``, and values to wire format.

Every value travels in binary with the type it has in Python, never as text whose type the server
guesses: ``int`` is ``bigint``, so that arithmetic has 64 bits as in SQLite, and one statement is one
prepared statement whatever the number's size. Formats: the server's ``*recv`` functions
(https://www.postgresql.org/docs/15/protocol-overview.html).
"""

from __future__ import annotations

import re
import struct

from novacron.database.store import DatabaseInvalidError, Parameters

INT8, FLOAT8, TEXT, BYTEA, UNKNOWN = 20, 701, 25, 17, 0
"""Object ids of built-in types (``pg_type.dat``). UNKNOWN lets the server infer the type of NULL."""

MOST_CACHED = 2000
"""Statements whose translation is kept. The product has some hundreds of texts; one that is made
anew each time must not fill the memory."""

_LONGEST = 1 << 30
"""Bytes; the server takes no larger value."""

_TOKENS = re.compile(
    r"""
      (?P<skip>
          [eE]'(?:[^'\\]|\\.|'')*'          # a string with escapes
        | '(?:[^']|'')*'                    # a string
        | "(?:[^"]|"")*"                    # a name
        | \$(?P<tag>[A-Za-z_]\w*)?\$.*?\$(?(tag)(?P=tag))\$   # a string between dollars
        | --[^\n]*                          # a comment
        | /\*.*?\*/
        | ::                                # a cast
      )
      | (?<!\w):(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    """,
    re.VERBOSE | re.DOTALL,
)

_pack_int = struct.Struct("!q").pack
_pack_float = struct.Struct("!d").pack


class Statement:
    """A translated text and the names its ``$1``, ``$2``, … stand for."""

    __slots__ = ("names", "sql")

    def __init__(self, sql: bytes, names: tuple[str, ...]) -> None:
        self.sql = sql
        self.names = names


class Bound:
    """A statement with its values, ready to be sent."""

    __slots__ = ("formats", "oids", "sql", "values")

    def __init__(
        self, sql: bytes, oids: tuple[int, ...] = (), values: tuple[bytes | None, ...] = ()
    ) -> None:
        self.sql = sql
        self.oids = oids
        self.values = values
        self.formats = (1,) * len(values)


_cache: dict[str, Statement] = {}


def translate(sql: str) -> Statement:
    """*sql* with numbered parameters. Cached."""
    found = _cache.get(sql)
    if found is not None:
        return found
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        return f"${numbers.setdefault(name, len(numbers) + 1)}"

    try:
        text = _TOKENS.sub(number, sql).encode()
    except UnicodeEncodeError as error:
        raise _refused("its text is not Unicode") from error
    if b"\0" in text:
        raise _refused("its text holds a zero byte")
    statement = Statement(text, tuple(numbers))
    if len(_cache) >= MOST_CACHED:
        _cache.clear()
    _cache[sql] = statement
    return statement


def bind(sql: str, parameters: Parameters | None) -> Bound:
    """*sql* with the values of *parameters*; those it does not name are left out.

    Raises:
      DatabaseInvalidError: a parameter is missing, or its value cannot be stored. No value is in
        the message.
    """
    statement = translate(sql)
    names = statement.names
    if not names:
        return Bound(statement.sql)
    given = parameters or {}
    oids: list[int] = []
    values: list[bytes | None] = []
    for name in names:
        try:
            value = given[name]
        except KeyError:
            raise _refused(f"the parameter :{name} has no value") from None
        kind = type(value)
        try:
            if kind is int or kind is bool:
                oids.append(INT8)
                values.append(_pack_int(value))
            elif kind is str:
                data = value.encode()  # type: ignore[union-attr]
                if len(data) >= _LONGEST:
                    raise _too_large(name)
                oids.append(TEXT)
                values.append(data)
            elif value is None:
                oids.append(UNKNOWN)
                values.append(None)
            else:
                oid, data = _other(name, value)
                oids.append(oid)
                values.append(data)
        except struct.error:
            raise _refused(f"the number of :{name} does not fit into 64 bits") from None
        except UnicodeEncodeError:
            raise _refused(f"the text of :{name} is not Unicode") from None
    return Bound(statement.sql, tuple(oids), tuple(values))


def _other(name: str, value: object) -> tuple[int, bytes]:
    if isinstance(value, float):
        return FLOAT8, _pack_float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if len(data) >= _LONGEST:
            raise _too_large(name)
        return BYTEA, data
    # Subclasses, such as an enum that is a str.
    if isinstance(value, str):
        return TEXT, str.__str__(value).encode()
    if isinstance(value, int):
        return INT8, _pack_int(int(value))
    raise _refused(f"the parameter :{name} is a {type(value).__name__}")


def _too_large(name: str) -> DatabaseInvalidError:
    return _refused(f"the value of :{name} is larger than 1 GiB")


def _refused(why: str) -> DatabaseInvalidError:
    return DatabaseInvalidError(
        "the database refused a statement",
        why=why,
        remedy="this is a defect in NovaCron; report it with this message",
    )

"""The states of a session and the tables that lead from one to the next.

``docs/reference/peer-protocol.md`` draws its diagram from these.
"""

from __future__ import annotations

import enum
from typing import Final

from novacron.protocol.messages import (
    Error,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Request,
    Response,
    Welcome,
)


class Role(enum.StrEnum):
    INITIATOR = "initiator"
    ACCEPTOR = "acceptor"


class State(enum.StrEnum):
    START = "start"
    AWAIT_HELLO = "await_hello"
    AWAIT_WELCOME = "await_welcome"
    ANSWER_HELLO = "answer_hello"
    OPEN = "open"
    LEAVING = "leaving"
    LEFT = "left"
    FINISHING = "finishing"
    CLOSED = "closed"
    FAILED = "failed"


Table = dict[State, dict[type[Message], State]]

SEND: Final[Table] = {
    State.START: {Hello: State.AWAIT_WELCOME, Error: State.FAILED},
    State.AWAIT_WELCOME: {Error: State.FAILED},
    State.AWAIT_HELLO: {Error: State.FAILED},
    State.ANSWER_HELLO: {Welcome: State.OPEN, Error: State.FAILED},
    State.OPEN: {
        Ping: State.OPEN,
        Pong: State.OPEN,
        Request: State.OPEN,
        Response: State.OPEN,
        Goodbye: State.LEAVING,
        Error: State.FAILED,
    },
    State.LEAVING: {
        Ping: State.LEAVING,
        Pong: State.LEAVING,
        Response: State.LEAVING,
        Error: State.FAILED,
    },
    State.LEFT: {
        Ping: State.LEFT,
        Pong: State.LEFT,
        Response: State.LEFT,
        Goodbye: State.FINISHING,
        Error: State.FAILED,
    },
    State.FINISHING: {
        Ping: State.FINISHING,
        Pong: State.FINISHING,
        Response: State.FINISHING,
        Error: State.FAILED,
    },
    State.CLOSED: {},
    State.FAILED: {},
}
"""State, message sent, next state."""

RECEIVE: Final[Table] = {
    State.START: {},
    State.AWAIT_WELCOME: {Welcome: State.OPEN, Error: State.FAILED},
    State.AWAIT_HELLO: {Hello: State.ANSWER_HELLO, Error: State.FAILED},
    State.ANSWER_HELLO: {},
    State.OPEN: {
        Ping: State.OPEN,
        Pong: State.OPEN,
        Request: State.OPEN,
        Response: State.OPEN,
        Goodbye: State.LEFT,
        Error: State.FAILED,
    },
    State.LEAVING: {
        # Requests too: the peer may have asked before it saw our Goodbye.
        Ping: State.LEAVING,
        Pong: State.LEAVING,
        Request: State.LEAVING,
        Response: State.LEAVING,
        Goodbye: State.FINISHING,
        Error: State.FAILED,
    },
    State.LEFT: {
        Ping: State.LEFT,
        Pong: State.LEFT,
        Response: State.LEFT,
        Error: State.FAILED,
    },
    State.FINISHING: {
        Ping: State.FINISHING,
        Pong: State.FINISHING,
        Response: State.FINISHING,
        Error: State.FAILED,
    },
    State.CLOSED: {},
    State.FAILED: {},
}
"""State, message received, next state."""

SETTLED: Final[dict[State, State]] = {State.FINISHING: State.CLOSED}
"""Taken when no request is open in either direction."""

HANDSHAKE: Final = frozenset(
    (State.START, State.AWAIT_HELLO, State.AWAIT_WELCOME, State.ANSWER_HELLO)
)
ENDED: Final = frozenset((State.CLOSED, State.FAILED))

"""What can go wrong between a node and the authority it joins."""

from __future__ import annotations

from typing import ClassVar

from novacron.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NetworkError,
    RemoteProtocolError,
    SecurityError,
    TransientError,
    UnavailableError,
)


class AuthorityUnreachableError(NetworkError, TransientError):
    """The authority's node does not answer."""

    code: ClassVar[str] = "trust.unreachable"


class NotTheInterfaceError(NetworkError, InvalidError):
    """What answers at the address is not the REST interface of an authority's node."""

    code: ClassVar[str] = "trust.wrong_address"


class WrongAuthorityError(SecurityError, DeniedError):
    """Whoever answers is not the authority the token was made by. It was told nothing."""

    code: ClassVar[str] = "trust.wrong_authority"


class JoinRefusedError(SecurityError, DeniedError):
    """The authority's node does not let this one in."""

    code: ClassVar[str] = "trust.refused"


class JoinAnswerError(SecurityError, RemoteProtocolError):
    """The authority's node answers what makes no sense."""

    code: ClassVar[str] = "trust.answer"


class LivedNodeError(SecurityError, ConflictError):
    """This node has a life that a join would end."""

    code: ClassVar[str] = "trust.lived"


class TrustMessageError(SecurityError, RemoteProtocolError):
    """A peer said something about trust that makes no sense."""

    code: ClassVar[str] = "trust.message"


class RenewalError(SecurityError, UnavailableError):
    """No peer has renewed the certificate."""

    code: ClassVar[str] = "trust.renewal"

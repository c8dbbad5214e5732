"""What goes wrong while something is moved."""

from __future__ import annotations

from typing import ClassVar

from novacron.errors import (
    ConflictError,
    DeniedError,
    DwcpError,
    InvalidError,
    LimitError,
    NetworkError,
    NotFoundError,
    RemoteProtocolError,
    TransientError,
    UnavailableError,
)


class DwcpUnavailableError(DwcpError, UnavailableError):
    """The transport, or a part of it, cannot run on this machine."""

    code: ClassVar[str] = "dwcp.unavailable"


class LinkLostError(DwcpError, TransientError):
    """The link ended before everything was moved. What was moved is not lost: try again."""

    code: ClassVar[str] = "dwcp.link_lost"


class LinkRefusedError(DwcpError, DeniedError):
    """The other node does not want the link as this one offered it."""

    code: ClassVar[str] = "dwcp.link_refused"


CONFLICT = "both nodes asked for a link at once"
"""Goes over the wire: it tells the other node to wait for the link that was asked for here."""


class LinkConflictError(DwcpError, ConflictError):
    """Both nodes asked at once; this one's ask stands."""

    code: ClassVar[str] = "dwcp.link_conflict"


class PeerUnreachableError(DwcpError, TransientError):
    """There is no session with the node, and none could be made."""

    code: ClassVar[str] = "dwcp.peer_unreachable"


class PeerUnknownError(DwcpError, NotFoundError):
    """No node answers to that name."""

    code: ClassVar[str] = "dwcp.peer_unknown"


class StreamDeniedError(DwcpError, DeniedError):
    """A connection did not prove the keys of its link."""

    code: ClassVar[str] = "dwcp.stream_denied"


class MessageError(DwcpError, RemoteProtocolError):
    """A control message is not what the protocol says."""

    code: ClassVar[str] = "dwcp.message"


class ObjectRefusedError(DwcpError, UnavailableError):
    """The other side could not take an object."""

    code: ClassVar[str] = "dwcp.object_refused"


class SourceReadError(DwcpError, UnavailableError):
    """What was to be sent could not be read."""

    code: ClassVar[str] = "dwcp.source_read"


class SourceChangedError(DwcpError, ConflictError):
    """What was to be sent is not what it was when the transfer began."""

    code: ClassVar[str] = "dwcp.source_changed"


class SourceInvalidError(DwcpError, InvalidError):
    """What was named cannot be sent."""

    code: ClassVar[str] = "dwcp.source_invalid"


class TargetWriteError(DwcpError, UnavailableError):
    """What arrived could not be written."""

    code: ClassVar[str] = "dwcp.target_write"


class PathDeniedError(DwcpError, DeniedError):
    """A path leads where transfers may not go."""

    code: ClassVar[str] = "dwcp.path_denied"


class TargetExistsError(DwcpError, ConflictError):
    """There is something at the destination already."""

    code: ClassVar[str] = "dwcp.target_exists"


class NoSpaceError(DwcpError, LimitError):
    """The destination has no room for what is coming."""

    code: ClassVar[str] = "dwcp.no_space"


class IntegrityError(DwcpError, ConflictError):
    """What arrived is not what was sent."""

    code: ClassVar[str] = "dwcp.integrity"


class JournalError(DwcpError, InvalidError):
    """The record of an interrupted transfer cannot be used."""

    code: ClassVar[str] = "dwcp.journal"


class TransferRefusedError(DwcpError, DeniedError):
    """The other node does not take the transfer."""

    code: ClassVar[str] = "dwcp.transfer_refused"


class TransferUnknownError(DwcpError, NotFoundError):
    """There is no such transfer."""

    code: ClassVar[str] = "dwcp.transfer_unknown"


class TransferLimitError(DwcpError, LimitError):
    """Too many transfers at once."""

    code: ClassVar[str] = "dwcp.transfer_limit"


class TransferCancelledError(DwcpError, ConflictError):
    """Somebody cancelled it."""

    code: ClassVar[str] = "dwcp.transfer_cancelled"


class DeadlineError(DwcpError, LimitError):
    """It took longer than it was allowed to."""

    code: ClassVar[str] = "dwcp.deadline"


def no_link(peer: str, exc: NetworkError) -> DwcpError:
    """What became of an ask for a link that ended in *exc*."""
    status = getattr(exc, "status", None)
    if status == 1:  # STATUS_UNKNOWN_METHOD
        return LinkRefusedError(
            f"node {peer} does not move data",
            why="its DWCP component does not run",
            remedy="see `novacron components` there",
        )
    if status is not None:
        return LinkRefusedError(f"node {peer} does not want a link", why=exc.why)
    return PeerUnreachableError(f"no link with node {peer}", why=str(exc))


def started_again() -> LinkLostError:
    return LinkLostError("the link was lost", why="the other node was started again")

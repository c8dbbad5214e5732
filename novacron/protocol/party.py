"""What one side of a session says of itself."""

from __future__ import annotations

from novacron.protocol.codes import FEATURE_REQUESTS, PROTOCOL_MAXIMUM, PROTOCOL_MINIMUM
from novacron.protocol.messages import Record


class LocalParty(Record):
    """What this side says of itself, and how long it waits. Times in seconds, sizes in bytes."""

    __slots__ = (
        "node_id",
        "boot_id",
        "address",
        "required",
        "optional",
        "max_frame_bytes",
        "max_in_flight",
        "handshake_timeout",
        "idle_timeout",
        "ping_interval",
        "minimum_version",
        "maximum_version",
    )
    node_id: str
    boot_id: str
    address: str
    required: int
    optional: int
    max_frame_bytes: int
    max_in_flight: int
    handshake_timeout: float
    idle_timeout: float
    ping_interval: float
    minimum_version: int
    maximum_version: int


def local_party(
    node_id: str,
    boot_id: str,
    *,
    address: str = "",
    required: int = 0,
    optional: int = FEATURE_REQUESTS,
    max_frame_bytes: int = 1024 * 1024,
    max_in_flight: int = 64,
    handshake_timeout: float = 10.0,
    idle_timeout: float = 60.0,
    ping_interval: float = 5.0,
    minimum_version: int = PROTOCOL_MINIMUM,
    maximum_version: int = PROTOCOL_MAXIMUM,
) -> LocalParty:
    """A :class:`LocalParty` with this code's own versions and features."""
    return LocalParty(
        node_id,
        boot_id,
        address,
        required,
        optional,
        max_frame_bytes,
        max_in_flight,
        handshake_timeout,
        idle_timeout,
        ping_interval,
        minimum_version,
        maximum_version,
    )

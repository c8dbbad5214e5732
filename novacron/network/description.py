"""A session in the words of the API and of the command line."""

from __future__ import annotations

from typing import Any

import trio

from novacron.network.session import PeerSession


def describe(session: PeerSession) -> dict[str, Any]:
    link = session.statistics()
    peer = session.peer
    return {
        "node_id": session.node_id,
        "address": session.stream.peer_address,
        "advertised": peer.address if peer is not None else None,
        "role": str(session.role),
        "state": str(session.machine.state),
        "seconds": trio.current_time() - session.opened_at,
        "round_trip_seconds": link.round_trip,
        "round_trip_minimum_seconds": link.round_trip_minimum,
        "jitter_seconds": link.jitter,
        "loss": link.loss,
        "clock_offset_seconds": link.clock_offset,
        "pings": link.samples,
    }

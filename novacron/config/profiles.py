"""What each network mode changes of the defaults.

Small on purpose: only keys whose best value really depends on the distance between nodes.
"""

from __future__ import annotations

from typing import Any

PROFILES: dict[str, dict[str, Any]] = {
    # Round trips below a millisecond and next to no loss: silence means trouble, so look often and
    # give up early; a peer is declared gone within ten seconds rather than a minute.
    "datacenter": {
        "network.ping_interval": 1.0,
        "network.idle_timeout": 10.0,
        "network.connect_timeout": 2.0,
        "network.handshake_timeout": 5.0,
    },
    # A SYN that is lost twice costs 1 s + 2 s + 4 s before the third try, and a TLS handshake is two
    # more round trips of a few hundred milliseconds: short deadlines would only make sessions flap.
    # Pinging rarely keeps idle links idle, yet stays under the 30 s after which common NATs forget.
    "internet": {
        "network.ping_interval": 15.0,
        "network.idle_timeout": 120.0,
        "network.connect_timeout": 30.0,
        "network.handshake_timeout": 30.0,
    },
    # Peers of both kinds: the deadlines must suit the far ones, the pings may suit the near ones.
    "hybrid": {
        "network.ping_interval": 5.0,
        "network.idle_timeout": 90.0,
        "network.connect_timeout": 20.0,
        "network.handshake_timeout": 20.0,
    },
}

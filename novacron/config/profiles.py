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
        "dwcp.amst.link_timeout": 10.0,
    },
    # A SYN that is lost twice costs 1 s + 2 s + 4 s before the third try, and a TLS handshake is two
    # more round trips of a few hundred milliseconds: short deadlines would only make sessions flap.
    # Pinging rarely keeps idle links idle, yet stays under the 30 s after which common NATs forget.
    # 1 Gbit/s at 300 ms is 36 MiB on its way, and as much again while a lost chunk is sent a second
    # time: twice the window. A line that is down for an hour at night is no reason to give up.
    "internet": {
        "network.ping_interval": 15.0,
        "network.idle_timeout": 120.0,
        "network.connect_timeout": 30.0,
        "network.handshake_timeout": 30.0,
        "dwcp.amst.link_timeout": 120.0,
        "dwcp.amst.window_bytes": 128 * 1024**2,
        "dwcp.amst.retry_for": 86400.0,
    },
    # Peers of both kinds: the deadlines must suit the far ones, the pings may suit the near ones.
    "hybrid": {
        "network.ping_interval": 5.0,
        "network.idle_timeout": 90.0,
        "network.connect_timeout": 20.0,
        "network.handshake_timeout": 20.0,
        "dwcp.amst.link_timeout": 60.0,
        "dwcp.amst.window_bytes": 128 * 1024**2,
    },
}

"""Which host names and addresses a node's certificate is valid for."""

from __future__ import annotations

import ipaddress
import socket

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def certificate_names(*addresses: str | None) -> tuple[str, ...]:
    """Names for the *addresses* a node listens on or advertises (with or without a port).

    Loopback is always among them: who is on the machine may use it. The address of all interfaces
    stands for the host name, since which addresses a machine has changes while the node runs.
    """
    names = list(_LOOPBACK)
    for address in addresses:
        if not address:
            continue
        host = _host(address)
        try:
            parsed = ipaddress.ip_address(host)
        except ValueError:
            names.append(host.rstrip(".").lower())
            continue
        if parsed.is_unspecified:
            names.append(socket.gethostname().lower())
        else:
            names.append(str(parsed))
    return tuple(dict.fromkeys(name for name in names if _usable(name)))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    if address.count(":") == 1:
        return address.partition(":")[0]
    return address


def _usable(name: str) -> bool:
    # A name that is not ASCII would have to be IDNA; X.509 libraries refuse it as it is.
    return bool(name) and name.isascii() and len(name) <= 253 and " " not in name

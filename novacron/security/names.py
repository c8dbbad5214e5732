"""Which host names and addresses a node's certificate is valid for."""

from __future__ import annotations

import ipaddress
import socket

MOST_NAMES = 16
"""Of one certificate that another node's authority issues."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERYWHERE = ("0.0.0.0", "::")


def certificate_names(*addresses: str | None) -> tuple[str, ...]:
    """Names for the *addresses* a node listens on or advertises (with or without a port).

    Loopback is always among them: who is on the machine may use it. The address of all interfaces
    stands for the host name, since which addresses a machine has changes while the node runs.
    """
    names = list(_LOOPBACK)
    for address in addresses:
        if not address:
            continue
        name = canonical_name(_host(address))
        names.append(socket.gethostname().lower() if name in _EVERYWHERE else name)
    return tuple(dict.fromkeys(name for name in names if is_usable(name)))


def canonical_name(text: str) -> str:
    """The host name or address *text* as it stands in a certificate: a name that is compared with
    that in another spelling would be missing for ever."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text.rstrip(".").lower()
    if isinstance(address, ipaddress.IPv6Address):
        # Without a zone, which a certificate has no place for.
        mapped = address.ipv4_mapped
        return str(mapped if mapped is not None else ipaddress.IPv6Address(int(address)))
    return str(address)


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    if address.count(":") == 1:
        return address.partition(":")[0]
    return address


def is_usable(name: str) -> bool:
    """Whether a certificate can hold it."""
    # A name that is not ASCII would have to be IDNA; X.509 libraries refuse it as it is.
    return bool(name) and name.isascii() and len(name) <= 253 and " " not in name

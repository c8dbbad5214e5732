"""TCP congestion control algorithms: what there is, what is permitted, what a socket uses; and what
the kernel measured of a connection."""

from __future__ import annotations

from novacron._native.ffi import (
    Native,
    NativeDeniedError,
    NativeInvalidError,
    NativeNotFoundError,
    native,
)
from novacron.record import Record

LIST_BYTES = 4096
"""The kernel's own buffer for these lists is TCP_CA_BUF_MAX, 2048 bytes."""


class TcpInfo(Record):
    """``struct nc_tcp_info``. Times in microseconds; counters are of the connection's whole life."""

    rtt_us: int
    """Smoothed by the kernel; 0 without a sample."""
    rttvar_us: int
    """Smoothed mean deviation."""
    min_rtt_us: int
    segments_out: int
    """With data, repeated ones included."""
    total_retrans: int
    needless_retrans: int
    """Those the other end said it had already: reordered or late, not lost."""
    delivered: int
    delivered_ce: int
    ecn: bool
    """Negotiated with the other end."""
    app_limited: bool
    """:attr:`delivery_rate` says how much there was to send, not what the way carries."""
    delivery_rate: int
    """Bytes a second."""


def available() -> tuple[str, ...]:
    """Algorithms the kernel has loaded.

    Raises:
      NativeError: the module or the kernel's list is missing; so for all functions here.
    """
    loaded = native()
    return tuple(_list(loaded, loaded.lib.NC_TCP_AVAILABLE).split())


def allowed() -> tuple[str, ...]:
    """Algorithms a process without CAP_NET_ADMIN may choose."""
    loaded = native()
    return tuple(_list(loaded, loaded.lib.NC_TCP_ALLOWED).split())


def default() -> str:
    """The algorithm a new socket gets."""
    loaded = native()
    return _list(loaded, loaded.lib.NC_TCP_DEFAULT)


def permitted(name: str) -> bool:
    """Whether this process may choose *name* now, found out by choosing it on a spare socket."""
    loaded = native()
    error = loaded.new_error()
    try:
        code = loaded.lib.nc_tcp_probe(_encoded(name), error)
        loaded.check(code, error, f"cannot try congestion control {name!r}")
    except (NativeDeniedError, NativeNotFoundError):
        return False
    return True


def choose(fd: int, name: str) -> None:
    """Make the socket *fd*, which stays the caller's, use *name*; read back to be sure.

    Raises:
      NativeDeniedError: not in the allowed list, and no CAP_NET_ADMIN.
      NativeNotFoundError: the kernel has no such algorithm loaded.
      NativeInvalidError: not a TCP socket, or not a name.
    """
    loaded = native()
    error = loaded.new_error()
    code = loaded.lib.nc_tcp_set(fd, _encoded(name), error)
    loaded.check(code, error, f"cannot use congestion control {name!r}")


def chosen(fd: int) -> str:
    """The algorithm the socket *fd* uses.

    Raises:
      NativeInvalidError: not a TCP socket.
    """
    loaded = native()
    error = loaded.new_error()
    size = loaded.lib.NC_TCP_NAME_BYTES
    name = loaded.ffi.new("char[]", size)
    code = loaded.lib.nc_tcp_get(fd, name, size, error)
    loaded.check(code, error, "cannot read a socket's congestion control")
    return loaded.text(name)


def info(fd: int) -> TcpInfo:
    """What the kernel measured of the connection *fd*, which stays the caller's.

    Raises:
      NativeInvalidError: not a TCP socket.
    """
    loaded = native()
    error = loaded.new_error()
    found = loaded.ffi.new("struct nc_tcp_info *")
    code = loaded.lib.nc_tcp_info(fd, found, error)
    loaded.check(code, error, "cannot read what is known of a connection")
    return TcpInfo(
        rtt_us=found.rtt_us,
        rttvar_us=found.rttvar_us,
        min_rtt_us=found.min_rtt_us,
        segments_out=found.segments_out,
        total_retrans=found.total_retrans,
        needless_retrans=found.needless_retrans,
        delivered=found.delivered,
        delivered_ce=found.delivered_ce,
        ecn=bool(found.ecn),
        app_limited=bool(found.app_limited),
        delivery_rate=found.delivery_rate,
    )


def _list(loaded: Native, which: int) -> str:
    error = loaded.new_error()
    text = loaded.ffi.new("char[]", LIST_BYTES)
    code = loaded.lib.nc_tcp_list(which, text, LIST_BYTES, error)
    loaded.check(code, error, "cannot list TCP congestion control algorithms")
    return loaded.text(text)


def _encoded(name: str) -> bytes:
    # A zero byte would silently cut the name on the C side, and choose another algorithm.
    if not name.isascii() or not name.isprintable():
        raise NativeInvalidError(f"{name!r} is not the name of a congestion control algorithm")
    return name.encode("ascii")

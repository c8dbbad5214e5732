"""TCP congestion control algorithms: what there is, what is permitted, what a socket uses."""

from __future__ import annotations

from novacron._native.ffi import (
    Native,
    NativeDeniedError,
    NativeInvalidError,
    NativeNotFoundError,
    native,
)

LIST_BYTES = 4096
"""The kernel's own buffer for these lists is TCP_CA_BUF_MAX, 2048 bytes."""


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

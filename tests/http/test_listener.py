from __future__ import annotations

import errno
import os

import pytest
import trio

from novacron.errors import NetworkError
from novacron.http import (
    AddressUnavailableError,
    ListenAddressError,
    PortDeniedError,
    PortTakenError,
    listener_address,
    open_listener,
)


async def test_port_zero_takes_a_free_port_and_the_address_says_which() -> None:
    listener = await open_listener("127.0.0.1", 0, section="api")
    host, _, port = listener_address(listener).rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    await listener.aclose()


async def test_a_taken_port_is_explained_with_the_process_that_holds_it() -> None:
    holder = await open_listener("127.0.0.1", 0, section="api")
    port = int(listener_address(holder).rpartition(":")[2])
    with pytest.raises(PortTakenError) as caught:
        await open_listener("127.0.0.1", port, section="api")
    await holder.aclose()
    assert caught.value.what == f"cannot listen on 127.0.0.1:{port}"
    assert f"pid {os.getpid()}" in caught.value.why
    assert "set api.port" in caught.value.remedy
    assert caught.value.key == "api.port"
    assert not caught.value.retryable


async def test_an_address_of_no_interface_is_retryable_and_names_the_address_key() -> None:
    # TEST-NET-1, RFC 5737: on no host.
    with pytest.raises(AddressUnavailableError) as caught:
        await open_listener("192.0.2.1", 0, section="monitoring")
    assert caught.value.key == "monitoring.listen_address"
    assert caught.value.retryable


async def test_a_name_that_does_not_resolve_is_an_invalid_address() -> None:
    with trio.fail_after(20), pytest.raises(ListenAddressError) as caught:
        await open_listener("no such host", 0, section="api")
    assert caught.value.key == "api.listen_address"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("number", "error", "key"),
    [
        (errno.EACCES, PortDeniedError, "api.port"),
        (errno.EPERM, PortDeniedError, "api.port"),
        (errno.EAFNOSUPPORT, ListenAddressError, "api.listen_address"),
    ],
)
async def test_other_refusals_of_the_kernel_are_explained(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[NetworkError], key: str
) -> None:
    async def refuse(self: object, address: object) -> None:
        raise OSError(number, os.strerror(number))

    with trio.socket.socket() as any_socket:
        monkeypatch.setattr(type(any_socket), "bind", refuse)
    with pytest.raises(error) as caught:
        await open_listener("127.0.0.1", 80, section="api")
    assert caught.value.key == key
    assert caught.value.remedy


async def test_an_ipv6_address_is_bracketed() -> None:
    try:
        listener = await open_listener("::1", 0, section="api")
    except AddressUnavailableError:
        # A host without IPv6: then at least the error brackets it.
        with pytest.raises(AddressUnavailableError, match=r"\[::1\]"):
            await open_listener("::1", 0, section="api")
        return
    assert listener_address(listener).startswith("[::1]:")
    await listener.aclose()

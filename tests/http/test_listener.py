from __future__ import annotations

import errno
import os
import socket

import pytest
import trio

from novacron.environment.ports import (
    AddressInvalidError,
    AddressUnavailableError,
    PortDeniedError,
    PortTakenError,
)
from novacron.errors import NetworkError
from novacron.http import listener_address, listener_port, open_listener


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
    with trio.fail_after(20), pytest.raises(AddressInvalidError) as caught:
        await open_listener("no such host", 0, section="api")
    assert caught.value.key == "api.listen_address"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("number", "error", "key"),
    [
        (errno.EACCES, PortDeniedError, "api.port"),
        (errno.EPERM, PortDeniedError, "api.port"),
        (errno.EAFNOSUPPORT, AddressInvalidError, "api.listen_address"),
    ],
)
async def test_other_refusals_of_the_kernel_are_explained(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[NetworkError], key: str
) -> None:
    def refuse(self: object, address: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
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


async def test_port_zero_takes_the_port_it_had_before() -> None:
    first = await open_listener("127.0.0.1", 0, section="api")
    port = listener_port(first)
    await first.aclose()
    second = await open_listener("127.0.0.1", 0, section="api", again=port)
    assert listener_port(second) == port
    await second.aclose()


async def test_port_zero_takes_another_one_when_the_port_it_had_is_gone() -> None:
    other = await open_listener("127.0.0.1", 0, section="api")
    taken = listener_port(other)
    second = await open_listener("127.0.0.1", 0, section="api", again=taken)
    assert listener_port(second) not in (0, taken)
    await second.aclose()
    await other.aclose()


async def test_a_configured_port_is_the_one_that_is_asked_for() -> None:
    other = await open_listener("127.0.0.1", 0, section="api")
    wanted = listener_port(other)
    with pytest.raises(PortTakenError):
        await open_listener("127.0.0.1", wanted, section="api", again=wanted)
    await other.aclose()

from __future__ import annotations

import pytest

from novacron._native import verbs
from novacron._native.ffi import NativeDeniedError, NativeUnavailableError


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("enosys", "Function not implemented"),
        ("enoent", "No such file"),
        ("empty", "lists no device"),
    ],
)
def test_no_rdma_is_unavailable_for(
    fault: str, reason: str, fake_verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", fault)
    with pytest.raises(NativeUnavailableError, match=reason):
        verbs.devices(fake_verbs)


def test_forbidden_is_denied_and_not_taken_for_absent(
    fake_verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", "eperm")
    with pytest.raises(NativeDeniedError, match="Operation not permitted"):
        verbs.devices(fake_verbs)


def test_a_missing_library_is_unavailable_by_name() -> None:
    with pytest.raises(NativeUnavailableError, match="libnonesuch"):
        verbs.devices("libnonesuch.so.1")


def test_devices_are_described_with_their_ports(
    fake_verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", "")
    first, second, third = verbs.devices(fake_verbs)
    assert first.name == "mlx5_0"
    assert first.guid == "0002:c903:002f:f0a0"
    assert first.node_type == "ca"
    assert first.ports_reason == ""
    assert first.ports == (
        verbs.RdmaPort(1, "active", "infiniband", 4096, 100_000_000_000),
        verbs.RdmaPort(2, "down", "infiniband", 4096, 100_000_000_000),
    )
    assert (second.name, second.node_type) == ("rxe0", "ca")
    assert (third.name, third.node_type) == ("siw0", "rnic")
    assert [port.link_layer for port in second.ports] == ["ethernet"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("noopen", "ibv_open_device"), ("nodevice", "ibv_query_device"), ("noport", "ibv_query_port")],
)
def test_a_device_that_does_not_open_is_listed_with_the_reason(
    fault: str, reason: str, fake_verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", fault)
    devices = verbs.devices(fake_verbs)
    assert [device.name for device in devices] == ["mlx5_0", "rxe0", "siw0"]
    assert all(device.ports == () and reason in device.ports_reason for device in devices)

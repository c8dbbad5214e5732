from __future__ import annotations

import hashlib
import select
from collections.abc import Iterator

import pytest

from novacron._native import rdma
from novacron._native.ffi import (
    NativeDeniedError,
    NativeFailureError,
    NativeInvalidError,
    NativeNotFoundError,
    NativeUnavailableError,
)

SLOT_BYTES = 8192
WAIT_SECONDS = 10.0


@pytest.fixture
def device(fake_verbs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[rdma.Device]:
    monkeypatch.setenv("FAKE_VERBS", "")
    with rdma.open_device("rxe0", library=fake_verbs) as opened:
        yield opened


@pytest.fixture
def channels(device: rdma.Device) -> tuple[rdma.Channel, rdma.Channel]:
    left = device.open_channel(4, SLOT_BYTES)
    right = device.open_channel(8, SLOT_BYTES)
    left.connect(right.local())
    right.connect(left.local())
    return left, right


def wait_readable(channel: rdma.Channel) -> None:
    assert select.select([channel], [], [], WAIT_SECONDS)[0], "no wake-up"


def test_the_first_device_with_an_active_port_is_taken(
    fake_verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", "")
    with rdma.open_device(library=fake_verbs) as device:
        assert device.name == "mlx5_0"


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("enosys", NativeUnavailableError, "Function not implemented"),
        ("down", NativeUnavailableError, "no active port"),
        ("nogid", NativeUnavailableError, "no address"),
        ("fork", NativeUnavailableError, "RDMAV_FORK_SAFE"),
        ("noopen", NativeDeniedError, "Permission denied"),
    ],
)
def test_no_usable_device_is_told_by_its_reason(
    fault: str,
    kind: type[Exception],
    reason: str,
    fake_verbs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_VERBS", fault)
    with pytest.raises(kind, match=reason):
        rdma.open_device(library=fake_verbs)


def test_a_device_that_is_not_there_is_not_found(
    fake_verbs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", "")
    with pytest.raises(NativeNotFoundError, match="mlx9"):
        rdma.open_device("mlx9", library=fake_verbs)
    with pytest.raises(NativeInvalidError):
        rdma.open_device("rxe0\0", library=fake_verbs)


def test_memory_that_may_not_be_locked_is_denied(
    device: rdma.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERBS", "regeperm")
    with pytest.raises(NativeDeniedError, match="may not lock 32768 bytes"):
        device.open_channel(4, SLOT_BYTES)


def test_figures_are_what_the_other_side_needs(device: rdma.Device) -> None:
    with device.open_channel(4, SLOT_BYTES) as channel:
        figures = channel.local()
    assert len(figures.gid) == rdma.GID_BYTES
    assert (figures.slots, figures.slot_bytes, figures.mtu) == (4, SLOT_BYTES, 4096)
    assert figures.qpn
    assert figures.rkey
    assert figures.address % 4096 == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"gid": bytes(15)},
        {"gid": bytes(16)},
        {"slots": 0},
        {"slots": 1 << 40},
        {"slot_bytes": 4096},
        {"qpn": -1},
        {"mtu": 1500},
        {"lid": 1 << 16},
    ],
)
def test_a_peer_is_refused_that_says(wrong: dict[str, object], device: rdma.Device) -> None:
    with device.open_channel(4, SLOT_BYTES) as channel:
        with pytest.raises(NativeInvalidError):
            channel.connect(channel.local()._replace(**wrong))
        channel.connect(channel.local())


def test_messages_cross_in_both_directions(
    channels: tuple[rdma.Channel, rdma.Channel],
) -> None:
    sent = [hashlib.sha256(bytes([i])).digest() * (1 + i % 256) for i in range(200)]
    left, right = channels
    for sender, receiver in ((left, right), (right, left)):
        received: list[bytes] = []
        for message in sent:
            while not sender.send(message):
                wait_readable(receiver)
                received += receiver.receive()
                wait_readable(sender)
                assert sender.receive() == []
        while len(received) < len(sent):
            wait_readable(receiver)
            received += receiver.receive()
        assert received == sent


def test_a_full_channel_says_so_and_recovers(
    channels: tuple[rdma.Channel, rdma.Channel],
) -> None:
    left, right = channels
    # Four transmit slots of ours bound it, until their writes are completed; then eight over there.
    assert [left.send(b"x") for _ in range(5)] == [True] * 4 + [False]
    left.receive()
    assert left.has_room
    assert [left.send(b"x") for _ in range(5)] == [True] * 4 + [False]
    left.receive()
    assert not left.has_room
    assert len(right.receive()) == 8
    left.receive()
    assert left.has_room


def test_a_message_has_to_fit(channels: tuple[rdma.Channel, rdma.Channel]) -> None:
    for wrong in (b"", bytes(SLOT_BYTES + 1)):
        with pytest.raises(NativeInvalidError, match="in a slot of 8192"):
            channels[0].send(wrong)
    assert channels[0].send(bytes(SLOT_BYTES))


def test_a_peer_that_is_gone_is_noticed_by_the_next_message(
    channels: tuple[rdma.Channel, rdma.Channel],
) -> None:
    left, right = channels
    right.close()
    assert left.send(b"x")
    with pytest.raises(NativeFailureError, match="the peer does not answer"):
        left.receive()
    with pytest.raises(NativeFailureError, match="the peer does not answer"):
        left.receive()


def test_what_is_closed_or_handed_on_is_refused(device: rdma.Device) -> None:
    channel = device.open_channel(2, 4096)
    handed_on = device.open_channel(2, 4096)
    pointer = handed_on.detach()
    handed_on.close()
    channel.close()
    channel.close()
    for gone in (channel, handed_on):
        with pytest.raises(NativeInvalidError):
            gone.send(b"x")
        with pytest.raises(NativeInvalidError):
            gone.fileno()
    rdma.native().lib.nc_rdma_channel_close(pointer)
    device.close()
    device.close()
    with pytest.raises(NativeInvalidError):
        device.open_channel(2, 4096)


def test_a_device_closes_the_channels_that_are_left(
    device: rdma.Device, channels: tuple[rdma.Channel, rdma.Channel]
) -> None:
    device.close()
    with pytest.raises(NativeInvalidError):
        channels[0].receive()

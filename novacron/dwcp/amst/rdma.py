"""RDMA on this node: the device, and why it is not used where it is not."""

from __future__ import annotations

import logging
from typing import Final

import trio

from novacron._native import rdma as native
from novacron._native.rdma import Channel, Device, Peer
from novacron.dwcp.amst.errors import DwcpUnavailableError
from novacron.dwcp.amst.messages import pack, unpack
from novacron.dwcp.amst.native import NativeLink
from novacron.dwcp.amst.negotiation import RdmaAsk, RdmaOffer
from novacron.dwcp.amst.wire import CHECKSUM_BYTES, HEADER_BYTES, TAG_BYTES
from novacron.errors import NativeError
from novacron.network.session import PeerSession

logger = logging.getLogger("novacron.dwcp")

SLAB_BYTES: Final = 16 * 1024 * 1024
"""Of registered memory in each direction of a channel: enough to keep a fast link busy while a frame is
sealed, little enough to be locked quickly."""
MOST_SLOTS: Final = 32
LEAST_SLOTS: Final = 4
PAGE: Final = 4096
OPEN_TIMEOUT: Final = 5.0
"""A device in trouble may hold its driver for long; the node does not wait for it."""
ASK_TIMEOUT: Final = 15.0
"""Seconds for the other node to open its end of a channel."""
WATCH_EVERY: Final = 1.0
LOOK_AGAIN: Final = 10.0
"""Seconds between looks for a device after one was lost."""


class Rdma:
    """The node's RDMA device. :meth:`run` never fails: what is not there is said in :attr:`why`."""

    def __init__(self, *, wanted: bool, device: str | None) -> None:
        self._wanted = wanted
        self._device_name = device
        self._device: Device | None = None
        self._opening = 0
        self._running = trio.CancelScope()
        self.why = "not looked for yet" if wanted else "dwcp.amst.rdma is off"

    @property
    def usable(self) -> bool:
        return self._device is not None

    @property
    def device(self) -> str:
        return self._device.name if self._device is not None else ""

    async def run(self) -> None:
        """Open the device, and see to it that one that was removed is let go: some drivers keep whoever
        removes a device waiting for those who have it open. Returns where there is none to begin with,
        and after :meth:`aclose`."""
        with self._running:
            await self._open()
            while (device := self._device) is not None:
                await self._watch(device)
                while not self.usable:
                    await trio.sleep(LOOK_AGAIN)
                    await self._open_again()

    async def _open(self) -> None:
        if not self._wanted:
            return
        self.why = f"the device did not answer within {OPEN_TIMEOUT:g} s"
        with trio.move_on_after(OPEN_TIMEOUT):
            try:
                self._device = await self._open_device()
                self.why = ""
            except NativeError as exc:
                self.why = exc.why or exc.what
        if self._device_name is not None and self._device is None:
            logger.warning(
                "RDMA device %s cannot be used, TCP is: %s",
                self._device_name,
                self.why,
                extra={"key": "dwcp.amst.rdma_device"},
            )

    async def _open_again(self) -> None:
        """The one that was lost, or another."""
        with trio.move_on_after(OPEN_TIMEOUT):
            try:
                self._device = await self._open_device()
            except NativeError:
                return
        if self._device is not None:
            self.why = ""
            logger.info("RDMA device %s can be used", self._device.name)

    async def _open_device(self) -> Device:
        name = self._device_name or ""
        return await trio.to_thread.run_sync(native.open_device, name, abandon_on_cancel=True)

    async def _watch(self, device: Device) -> None:
        while not device.lost:  # noqa: ASYNC110 - nothing else says so
            await trio.sleep(WATCH_EVERY)
        self.why = f"device {device.name} was removed or failed"
        await self._close()

    async def _close(self) -> None:
        """Channels of the engine may outlive this; those that are being agreed on are waited for."""
        device, self._device = self._device, None
        if device is None:
            return
        with trio.CancelScope(shield=True):
            while self._opening or device.channels:  # noqa: ASYNC110 - threads and others' channels
                await trio.sleep(0.05)
            await trio.to_thread.run_sync(device.close)

    async def open_channel(self, chunk_bytes: int) -> Channel:
        """A channel whose slots hold a frame of *chunk_bytes* of content; the caller closes it.

        Raises:
          DwcpUnavailableError: there is no device, or not any more.
          NativeError: so much memory may not be locked, or the device refused.
        """
        device = self._device
        if device is None:
            raise DwcpUnavailableError("no RDMA", why=self.why)
        frame = HEADER_BYTES + chunk_bytes + CHECKSUM_BYTES + TAG_BYTES
        slot_bytes = -(-frame // PAGE) * PAGE
        slots = min(MOST_SLOTS, max(LEAST_SLOTS, SLAB_BYTES // slot_bytes))
        self._opening += 1
        try:
            return await trio.to_thread.run_sync(device.open_channel, slots, slot_bytes)
        finally:
            self._opening -= 1

    async def dial(self, session: PeerSession, link: NativeLink, stream_id: int) -> None:
        """Agree on a channel with the other node, and hand it to *link* as that stream.

        Raises:
          NovaCronError: RDMA cannot be used with that node.
        """
        channel = await self.open_channel(link.max_chunk_bytes)
        try:
            ask = RdmaAsk(link=link.link_id, stream=stream_id, offer=offer_of(channel))
            body = await session.request("amst.rdma", pack(ask), within=ASK_TIMEOUT)
            await connect(channel, unpack(RdmaOffer, body))
        except BaseException:
            channel.close()
            raise
        link.add_rdma(channel, stream_id)

    async def aclose(self) -> None:
        """Harmless when repeated."""
        self._running.cancel()
        await self._close()


async def connect(channel: Channel, offer: RdmaOffer) -> None:
    """Raises NativeError: the other side's figures make no sense, or the kernel refused."""
    await trio.to_thread.run_sync(channel.connect, Peer(**offer._asdict()))


def offer_of(channel: Channel) -> RdmaOffer:
    return RdmaOffer(**channel.local()._asdict())

"""What two nodes agree on before they move anything, decided without I/O.

The node that wants a link asks, the other answers; both asks and answers travel in the mutually
authenticated session. Each gives 32 random bytes. The keys of the link come from both, and from a
hash of the two messages, so that neither side alone determines them and nobody in between could have
changed what was agreed on (docs/reference/amst-protocol.md, "Keys").
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from novacron.dwcp.amst.errors import LinkRefusedError
from novacron.dwcp.amst.messages import (
    Check,
    Message,
    binary,
    boolean,
    integer,
    list_of,
    nested,
    one_of,
    pack,
    text,
)
from novacron.dwcp.amst.transport import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from novacron.record import Record

V1: Final = 1
V3: Final = 3
MAX_STREAMS: Final = 256
MAX_WINDOW: Final = 1 << 40
DATACENTER: Final = "datacenter"
"""The only mode in which nodes may leave the encryption out."""
KNOWN_MOVERS: Final = ("rdma",)
"""Besides TCP, which both have. Others a peer offers are not echoed into an operator's status."""


class RdmaOffer(Message):
    """How to reach an RDMA queue pair; see ``struct nc_rdma_peer``."""

    checks: ClassVar[Mapping[str, Check]] = {
        "gid": binary(16),
        "qpn": integer(0, 0xFFFFFF),
        "psn": integer(0, 0xFFFFFF),
        "rkey": integer(0, 0xFFFFFFFF),
        "slots": integer(2, 1024),
        "slot_bytes": integer(4096, 8 << 20),
        "mtu": integer(256, 65536),
        "address": integer(0, (1 << 64) - 1),
        "lid": integer(0, 65535),
    }
    gid: bytes
    qpn: int
    psn: int
    rkey: int
    slots: int
    slot_bytes: int
    mtu: int
    address: int
    lid: int


class LinkAsk(Message):
    """``amst.link``: what the asking node can do and wants."""

    checks: ClassVar[Mapping[str, Check]] = {
        "versions": list_of(integer(1, 255), 8, 1),
        "link": binary(16),
        "random": binary(32),
        "encryption": boolean,
        "mode": one_of("auto", "datacenter", "internet", "hybrid"),
        "max_streams": integer(1, MAX_STREAMS),
        "chunk_bytes": integer(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES),
        "window_bytes": integer(MIN_CHUNK_BYTES, MAX_WINDOW),
        "codecs": list_of(text(16), 16, 1),
        "movers": list_of(text(16), 16, 1),
        "congestion": text(16),
    }
    versions: list[int]
    link: bytes
    random: bytes
    encryption: bool
    """Whether it wants what is moved to be encrypted."""
    mode: str
    max_streams: int
    chunk_bytes: int
    """The largest chunk it takes and sends."""
    window_bytes: int
    """What may be under way to it."""
    codecs: list[str]
    movers: list[str]
    congestion: str
    """TCP congestion control that it uses on the connections it makes; empty: the kernel's own."""


class LinkAnswer(Message):
    """What was agreed on. The window is the answering node's."""

    checks: ClassVar[Mapping[str, Check]] = {
        "version": integer(1, 255),
        "random": binary(32),
        "encryption": boolean,
        "max_streams": integer(1, MAX_STREAMS),
        "chunk_bytes": integer(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES),
        "window_bytes": integer(MIN_CHUNK_BYTES, MAX_WINDOW),
        "codecs": list_of(text(16), 16, 1),
        "movers": list_of(text(16), 16, 1),
        "port": integer(1, 65535),
        "congestion": text(16),
        "why": text(512),
    }
    version: int
    random: bytes
    encryption: bool
    max_streams: int
    chunk_bytes: int
    window_bytes: int
    codecs: list[str]
    movers: list[str]
    port: int
    """Of the answering node's data listener."""
    congestion: str
    """What it means to use on the connections it accepts."""
    why: str
    """What is less than was asked for, and why; empty where nothing is."""


class LinkClose(Message):
    """``amst.close``: the sender has closed the link."""

    checks: ClassVar[Mapping[str, Check]] = {"link": binary(16), "why": text(256)}
    link: bytes
    why: str


class RdmaAsk(Message):
    """``amst.rdma``: a queue pair of the link's initiator; answered with an :class:`RdmaOffer`."""

    checks: ClassVar[Mapping[str, Check]] = {
        "link": binary(16),
        "stream": integer(1, 0xFFFFFFFF),
        "offer": nested(RdmaOffer),
    }
    link: bytes
    stream: int
    offer: Any


class Abilities(Record):
    """What a node can do, and wants."""

    versions: tuple[int, ...]
    """Best first."""
    encryption: bool
    mode: str
    max_streams: int
    chunk_bytes: int
    window_bytes: int
    movers: tuple[str, ...] = ("tcp",)
    codecs: tuple[str, ...] = ("raw",)
    congestion: str = ""
    """Of TCP, on this link."""


class Agreement(Record):
    """What one side knows when both have agreed."""

    link_id: bytes
    version: int
    encryption: bool
    max_streams: int
    chunk_bytes: int
    send_window: int
    receive_window: int
    movers: tuple[str, ...]
    codecs: tuple[str, ...]
    congestion: str
    """What the other end uses."""
    why: str


def ask(abilities: Abilities) -> LinkAsk:
    """A new ask, with an id and random bytes of its own."""
    return LinkAsk(
        versions=list(abilities.versions),
        link=secrets.token_bytes(16),
        random=secrets.token_bytes(32),
        encryption=abilities.encryption,
        mode=abilities.mode,
        max_streams=abilities.max_streams,
        chunk_bytes=abilities.chunk_bytes,
        window_bytes=abilities.window_bytes,
        codecs=list(abilities.codecs),
        movers=list(abilities.movers),
        congestion=abilities.congestion,
    )


def answer(asked: LinkAsk, abilities: Abilities, *, port: int) -> LinkAnswer:
    """Agree, or not.

    Raises:
      LinkRefusedError: the two nodes have no version or codec in common.
    """
    version = next((v for v in abilities.versions if v in asked.versions), None)
    if version is None:
        raise LinkRefusedError(
            "no version of the transport in common",
            why=f"asked for {_numbers(asked.versions)}, this node speaks "
            f"{_numbers(abilities.versions)}",
            remedy="see dwcp.amst.protocol on both nodes",
            key="dwcp.amst.protocol",
        )
    codecs = [codec for codec in abilities.codecs if codec in asked.codecs]
    if not codecs:
        raise LinkRefusedError("no codec in common")
    movers = [mover for mover in abilities.movers if mover in asked.movers] or ["tcp"]
    encryption = _encrypts(asked.encryption, asked.mode, abilities.encryption, abilities.mode)
    return LinkAnswer(
        version=version,
        random=secrets.token_bytes(32),
        encryption=encryption,
        max_streams=min(asked.max_streams, abilities.max_streams),
        chunk_bytes=min(asked.chunk_bytes, abilities.chunk_bytes),
        window_bytes=abilities.window_bytes,
        codecs=codecs,
        movers=movers,
        port=port,
        congestion=abilities.congestion,
        why="; ".join(_reductions(asked, abilities, version, encryption)),
    )


def _reductions(
    asked: LinkAsk, abilities: Abilities, version: int, encryption: bool
) -> Iterator[str]:
    """What either node gets less of than it wanted. Both are told, so "asking" and "answering" and
    never "this" and "the other"."""
    if version < max(asked.versions):
        yield f"version {version}: the answering node speaks no newer one"
    elif version < max(abilities.versions):
        yield f"version {version}: the asking node speaks no newer one"
    if encryption and not (asked.encryption and abilities.encryption):
        if asked.encryption or abilities.encryption:
            side = "asking" if asked.encryption else "answering"
            yield f"encrypted: the {side} node wants it"
        else:
            side = "asking" if asked.mode != DATACENTER else "answering"
            yield f"encrypted: the {side} node is not in datacenter mode"
    for mover in sorted({*asked.movers, *abilities.movers} - {"tcp"}):
        if mover not in abilities.movers and mover in KNOWN_MOVERS:
            yield f"no {mover}: the answering node has none"
        elif mover not in asked.movers:
            yield f"no {mover}: the asking node has none"
    for what, asks, answers in (
        ("streams", asked.max_streams, abilities.max_streams),
        ("bytes a chunk", asked.chunk_bytes, abilities.chunk_bytes),
    ):
        if asks != answers:
            side = "asking" if asks < answers else "answering"
            yield f"at most {min(asks, answers)} {what}: the {side} node's limit"


def agreed_by_asker(asked: LinkAsk, answered: LinkAnswer) -> Agreement:
    """Hold the answer against what was asked.

    Raises:
      LinkRefusedError: it is not an answer to that.
    """
    fault = ""
    if answered.version not in asked.versions:
        fault = f"it chose version {answered.version}"
    elif not answered.encryption and (asked.encryption or asked.mode != DATACENTER):
        fault = "it left the encryption out"
    elif answered.chunk_bytes > asked.chunk_bytes or answered.max_streams > asked.max_streams:
        fault = "it allowed itself more than was asked for"
    elif not set(answered.codecs) <= set(asked.codecs):
        fault = "it chose a codec that was not offered"
    elif not set(answered.movers) <= {*asked.movers, "tcp"}:
        fault = "it chose a mover that was not offered"
    if fault:
        raise LinkRefusedError("the other node's answer does not fit what was asked", why=fault)
    return _agreement(
        asked, answered, answered.window_bytes, asked.window_bytes, answered.congestion
    )


def agreed_by_answerer(asked: LinkAsk, answered: LinkAnswer) -> Agreement:
    return _agreement(asked, answered, asked.window_bytes, answered.window_bytes, asked.congestion)


def _agreement(
    asked: LinkAsk, answered: LinkAnswer, send_window: int, receive_window: int, congestion: str
) -> Agreement:
    return Agreement(
        link_id=asked.link,
        version=answered.version,
        encryption=answered.encryption,
        max_streams=answered.max_streams,
        chunk_bytes=answered.chunk_bytes,
        send_window=max(send_window, answered.chunk_bytes),
        receive_window=max(receive_window, answered.chunk_bytes),
        movers=tuple(answered.movers),
        codecs=tuple(answered.codecs),
        congestion=congestion,
        why=answered.why,
    )


def first_streams(wanted: int, mode: str, *, same_host: bool) -> int:
    """How many connections a link starts with: *wanted*, or with 0 what suits the path's *mode*."""
    if wanted:
        return wanted
    if same_host:
        return 1
    return 4 if mode == DATACENTER else 8


def _encrypts(asks: bool, asker_mode: str, answers: bool, answerer_mode: str) -> bool:
    both_off = not asks and not answers
    return not (both_off and asker_mode == answerer_mode == DATACENTER)


def _numbers(versions: Any) -> str:
    return ", ".join(map(str, versions))


# --- Keys ------------------------------------------------------------------------------------


def link_secret(asked: LinkAsk, answered: LinkAnswer) -> bytearray:
    """HKDF-Extract (RFC 5869) of both random values, salted with what was said. 32 bytes, which the
    caller wipes with :func:`wipe`."""
    salt = hashlib.sha256(pack(asked) + pack(answered)).digest()
    material = bytearray(asked.random + answered.random)
    try:
        return bytearray(hmac.new(salt, material, hashlib.sha256).digest())
    finally:
        wipe(material)


def link_context(link_id: bytes, asker: str, answerer: str) -> bytes:
    """SHA-256 over the link's id and the two nodes' ids, in the order of asking. The ids are what
    the certificates of the session were issued for; the certificates themselves would change with
    each renewal, in the middle of a link."""
    return hashlib.sha256(link_id + asker.encode() + b"\0" + answerer.encode()).digest()


def wipe(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))

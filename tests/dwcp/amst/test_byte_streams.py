"""Byte streams between programs of two nodes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from novacron.dwcp.amst.byte_streams import MAX_STREAMS, ByteStream
from novacron.dwcp.amst.errors import TransferLimitError, TransferRefusedError
from tests.dwcp.amst.pair import pair
from tests.network.authority import Certificates
from tests.network.conftest import until

MakeCertificates = Callable[[int], Certificates]


async def read_all(stream: ByteStream) -> bytes:
    data = b""
    while chunk := await stream.receive_some():
        data += chunk
    return data


async def echo_reversed(stream: ByteStream) -> None:
    await stream.send_all((await read_all(stream))[::-1])


async def test_what_is_said_in_both_directions_arrives_in_order(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    said = os.urandom(3_000_000)
    async with pair(tmp_path, certificates) as nodes:
        nodes.b.transfers.serve_streams("test.echo", echo_reversed)
        async with await nodes.a.transfers.open_stream(nodes.b.id, "test.echo") as stream:
            assert (stream.peer, stream.service) == (nodes.b.id, "test.echo")
            await stream.send_all(said)
            await stream.send_eof()
            assert await read_all(stream) == said[::-1]


async def test_a_short_question_is_answered_while_both_ends_stay_open(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async def double(stream: ByteStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data * 2)

    async with pair(tmp_path, certificates) as nodes:
        nodes.b.transfers.serve_streams("double", double)
        async with await nodes.a.transfers.open_stream(nodes.b.id, "double") as stream:
            for word in (b"one", b"two"):
                await stream.send_all(word)
                assert await stream.receive_some() == word * 2


async def test_a_stream_that_broke_does_not_look_like_one_that_ended(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    failed: list[BaseException] = []

    async def wait_for_more(stream: ByteStream) -> None:
        try:
            await read_all(stream)
        except trio.BrokenResourceError as exc:
            failed.append(exc)

    async with pair(tmp_path, certificates) as nodes:
        nodes.b.transfers.serve_streams("test", wait_for_more)
        async with await nodes.a.transfers.open_stream(nodes.b.id, "test") as stream:
            await stream.send_all(b"half of what was to be said")
            nodes.wires.lose("the cable was pulled")
            with pytest.raises(trio.BrokenResourceError, match="cable"):
                await stream.receive_some()
        await until(lambda: failed)


async def test_a_service_that_nobody_offers_is_refused(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        with pytest.raises(TransferRefusedError, match="no service"):
            await nodes.a.transfers.open_stream(nodes.b.id, "nobody")
        nodes.b.transfers.serve_streams("test", echo_reversed)
        nodes.b.transfers.stop_streams("test")
        with pytest.raises(TransferRefusedError, match="no service"):
            await nodes.a.transfers.open_stream(nodes.b.id, "test")
        with pytest.raises(ValueError, match="no name"):
            nodes.b.transfers.serve_streams("Not A Name", echo_reversed)


async def test_a_handler_that_fails_ends_its_stream_and_nothing_else(
    tmp_path: Path, certificates: MakeCertificates, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(stream: ByteStream) -> None:
        raise RuntimeError("a bug")

    async with pair(tmp_path, certificates) as nodes:
        nodes.b.transfers.serve_streams("bug", fail)
        nodes.b.transfers.serve_streams("test.echo", echo_reversed)
        async with await nodes.a.transfers.open_stream(nodes.b.id, "bug") as stream:
            assert await read_all(stream) == b""
        assert "a byte stream's handler failed" in caplog.text
        async with await nodes.a.transfers.open_stream(nodes.b.id, "test.echo") as stream:
            await stream.send_all(b"ab")
            await stream.send_eof()
            assert await read_all(stream) == b"ba"


async def test_other_nodes_cannot_open_any_number(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        nodes.b.transfers.serve_streams("test.echo", echo_reversed)
        streams = [
            await nodes.a.transfers.open_stream(nodes.b.id, "test.echo", window_bytes=65536)
            for _ in range(MAX_STREAMS)
        ]
        with pytest.raises(TransferLimitError):
            await nodes.a.transfers.open_stream(nodes.b.id, "test.echo")
        for stream in streams:
            await stream.aclose()
        await until(lambda: nodes.b.transfers._streams._serving == 0)
        await (await nodes.a.transfers.open_stream(nodes.b.id, "test.echo")).aclose()


async def test_streams_leave_no_descriptor_behind(
    tmp_path: Path, certificates: MakeCertificates, no_leaks: None
) -> None:
    async with pair(tmp_path, certificates) as nodes:
        nodes.b.transfers.serve_streams("test.echo", echo_reversed)
        async with await nodes.a.transfers.open_stream(nodes.b.id, "test.echo") as stream:
            await stream.send_all(b"x")

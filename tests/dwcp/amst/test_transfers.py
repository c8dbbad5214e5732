"""Transfers from one node to another, whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.dwcp.amst.pair import CHUNK, digest, pair, random_file
from tests.network.authority import Certificates

MakeCertificates = Callable[[int], Certificates]


async def test_a_file_arrives_with_its_content_mode_and_time(
    tmp_path: Path, certificates: MakeCertificates
) -> None:
    source = random_file(tmp_path / "disk.img", 5 * CHUNK + 17)
    source.chmod(0o640)
    os.utime(source, ns=(1_600_000_000_123_456_789,) * 2)
    async with pair(tmp_path, certificates) as nodes:
        transfer = await nodes.send(source, to="images/new.img")
        await transfer.wait()
        arrived = nodes.b.files / "images" / "new.img"
        assert digest(arrived) == digest(source)
        found = arrived.stat()
        assert found.st_mode & 0o777 == 0o640
        assert found.st_mtime_ns == 1_600_000_000_123_456_789
        view = transfer.view()
        assert (view.state, view.files_done, view.bytes_done) == ("done", 1, 5 * CHUNK + 17)
        assert view.bytes_moved == 5 * CHUNK + 17
        assert view.destination == str(arrived)
        other = nodes.received().view()
        assert (other.role, other.state, other.bytes_done) == ("receiver", "done", 5 * CHUNK + 17)
        assert nodes.b.parts() == nodes.b.journals() == []

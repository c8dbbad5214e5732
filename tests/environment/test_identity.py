from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.schema import SystemSettings
from novacron.data_directory import DataDirectory
from novacron.environment import Identity, identity
from novacron.environment.data_access import DataDirectoryFullError, DataDirectoryMissingError
from novacron.environment.identity import (
    IdentityConflictError,
    IdentityCorruptError,
    IdentityMissingError,
    decode_identity,
    encode_identity,
)
from novacron.errors import ConflictError, InvalidError, LocalProtocolError
from novacron.units import NodeId

ONE = NodeId("11111111-1111-4111-8111-111111111111")
TWO = NodeId("22222222-2222-4222-8222-222222222222")


async def boot(data_directory: DataDirectory, node_id: str | None = None) -> Identity:
    component = Identity(SystemSettings(node_id=node_id), data_directory)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await component.initialize(nursery)
    await component.shutdown()
    return component


async def refused(
    data_directory: DataDirectory, kind: type[Exception], node_id: str | None = None
) -> Exception:
    component = Identity(SystemSettings(node_id=node_id), data_directory)
    with trio.fail_after(30), pytest.raises(kind) as caught:
        await component.initialize(None)  # type: ignore[arg-type]
    return caught.value


async def test_the_first_boot_makes_a_random_uuid_and_later_boots_keep_it(
    data_directory: DataDirectory, new_data_directory: Callable[[], DataDirectory]
) -> None:
    first = await boot(data_directory)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first.node_id
    )
    content = data_directory.identity.read_bytes()
    assert (await boot(data_directory)).node_id == first.node_id
    assert data_directory.identity.read_bytes() == content
    assert (await boot(new_data_directory())).node_id != first.node_id


async def test_the_file_is_readable_by_its_owner_alone(data_directory: DataDirectory) -> None:
    await boot(data_directory)
    assert data_directory.identity.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(data_directory.identity.read_text())) == {
        "format",
        "node_id",
        "created_at",
        "sha256",
    }
    assert [entry.name for entry in data_directory.root.iterdir()] == ["identity.json"]


async def test_a_configured_id_is_adopted_once_and_another_is_refused(
    data_directory: DataDirectory,
) -> None:
    assert (await boot(data_directory, ONE)).node_id == ONE
    assert (await boot(data_directory, ONE)).node_id == ONE
    assert (await boot(data_directory)).node_id == ONE
    content = data_directory.identity.read_bytes()
    error = await refused(data_directory, IdentityConflictError, TWO)
    assert isinstance(error, ConflictError)
    assert ONE in error.what
    assert TWO in error.why
    assert "system.data_dir" in error.remedy
    assert error.key == "system.node_id"
    assert data_directory.identity.read_bytes() == content


GOOD = encode_identity(ONE, 1.0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty or all zeros"),
        (bytes(200), "empty or all zeros"),
        (GOOD[:40], "not JSON"),
        (b"[" * 3000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "format this version does not know"),
        (GOOD.replace(b"1111-", b"1112-", 1), "checksum does not fit"),
        (GOOD.replace(b'"format": 1', b'"format": 2'), "format this version does not know"),
        (encode_identity(NodeId("my-host"), 1.0), "no node ID"),
        (GOOD + b" " * 5000, "larger than 4096 bytes"),
        (b"\xff\xfe" + GOOD, "not JSON"),
    ],
)
async def test_a_damaged_file_stops_the_boot_and_stays_as_it_is(
    data_directory: DataDirectory, content: bytes, why: str
) -> None:
    data_directory.identity.write_bytes(content)
    for node_id in (None, ONE):
        error = await refused(data_directory, IdentityCorruptError, node_id)
        assert isinstance(error, InvalidError)
        assert why in error.why
        assert str(data_directory.identity) in error.what
        assert "backup" in error.remedy
        assert error.key == "system.node_id"
    assert data_directory.identity.read_bytes() == content


async def test_a_lost_identity_beside_a_database_is_not_replaced_by_a_new_one(
    data_directory: DataDirectory,
) -> None:
    data_directory.database.mkdir()
    (data_directory.database / "novacron.db").write_bytes(b"x")
    error = await refused(data_directory, IdentityMissingError)
    assert "a stranger to its peers" in str(error)
    assert "system.node_id" in str(error)
    assert not data_directory.identity.exists()
    assert (await boot(data_directory, ONE)).node_id == ONE


async def test_a_full_disk_leaves_no_half_written_identity(
    data_directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(identity, "write_durably", full)
    error = await refused(data_directory, DataDirectoryFullError)
    assert "free some space" in str(error).lower()
    assert not data_directory.identity.exists()


async def test_a_missing_data_directory_is_named(data_directory: DataDirectory) -> None:
    error = await refused(DataDirectory(data_directory.root / "gone"), DataDirectoryMissingError)
    assert "gone" in str(error)
    assert "does not exist" in str(error)


def test_asking_before_the_file_was_read_is_our_mistake(data_directory: DataDirectory) -> None:
    with pytest.raises(LocalProtocolError):
        _ = Identity(SystemSettings(), data_directory).node_id


@given(st.binary(max_size=300))
def test_whatever_the_file_holds_it_is_an_identity_or_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_identity(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_makes_another_identity(position: int, change: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= change
    try:
        assert decode_identity(bytes(data)) == ONE
    except ValueError:
        return

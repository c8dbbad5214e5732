"""Files of dictionaries: one that is not whole is refused, and the node goes on without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.dwcp.hde.dictionary import (
    HEADER,
    KEY,
    MAX_BYTES,
    SHIPPED,
    file_of,
    read_dictionary,
    retrained_id,
    shipped_paths,
)
from novacron.dwcp.hde.errors import DictionaryError
from novacron.dwcp.hde.messages import MessageCodec

(ONE,) = [path.read_bytes() for path in shipped_paths() if path.stem == "1"]
CONTENT = ONE[HEADER.size :]


def test_the_shipped_ones_are_whole_and_called_by_their_ids() -> None:
    paths = list(shipped_paths())
    assert paths
    for path in paths:
        found = read_dictionary(path)
        assert found.id == int(path.stem)
        assert not found.retrained
    assert sorted(SHIPPED.iterdir()) == sorted(paths)


def test_one_of_an_operator_has_an_id_that_comes_from_its_content(tmp_path: Path) -> None:
    path = tmp_path / "own.zdict"
    path.write_bytes(file_of(retrained_id(CONTENT), CONTENT))
    found = read_dictionary(path, key=KEY)
    assert found.retrained
    assert found.content == CONTENT


DAMAGED: list[tuple[bytes, str]] = [
    (b"", "ends after 0 bytes"),
    (ONE[:20], "ends after 20 bytes"),
    (ONE[:-1], "cut short: 8191 of 8192"),
    (ONE[: HEADER.size], "cut short: 0 of 8192"),
    (ONE + b"\0", "bytes follow"),
    (ONE[:-1] + bytes([ONE[-1] ^ 1]), "SHA-256 is another"),
    (b"\x37\xa4\x30\xec" + ONE[4:], "no dictionary of novacron"),
    (ONE[:4] + b"\x02" + ONE[5:], "its format is 2"),
    (file_of(1, b"no dictionary of zstd"), "no zstd dictionary"),
    (file_of(0, CONTENT), "id cannot be 0"),
    (file_of(0x8000, CONTENT), "id cannot be 32768"),
    (HEADER.pack(b"NCZD", 1, 1, MAX_BYTES + 1, bytes(32)), "are the most"),
]


@pytest.mark.parametrize(("data", "why"), DAMAGED, ids=range(len(DAMAGED)))
def test_one_that_is_damaged_is_refused_with_file_reason_key_and_remedy(
    data: bytes, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.zdict"
    path.write_bytes(data)
    with pytest.raises(DictionaryError, match=why) as caught:
        read_dictionary(path, key=KEY)
    error = caught.value
    assert error.code == "dwcp.dictionary"
    assert str(path) in error.what
    assert error.key == "dwcp.hde.dictionary"
    assert "novacron hde train" in error.remedy


def test_one_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="No such file"):
        read_dictionary(tmp_path / "none.zdict", key=KEY)


def test_a_node_goes_on_with_the_shipped_one_where_its_own_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "short.zdict"
    path.write_bytes(ONE[:5000])
    codec = MessageCodec(str(path))
    codec.load()
    assert [one.id for one in codec.dictionaries] == [1]
    (fault,) = codec.faults
    assert "cut short" in str(fault)


def test_one_that_zstd_does_not_take_is_done_without(tmp_path: Path) -> None:
    # Whole by its header, and with tables that no zstd could have made.
    content = CONTENT[:8] + bytes(200)
    path = tmp_path / "odd.zdict"
    path.write_bytes(file_of(retrained_id(content), content))
    codec = MessageCodec(str(path))
    codec.load()
    assert [one.id for one in codec.dictionaries] == [1]
    assert [fault.code for fault in codec.faults] == ["dwcp.dictionary"]

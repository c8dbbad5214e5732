"""A sealed file is what was written, or it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.boot.sealed import DamagedFileError, read_sealed, seal, unseal, write_sealed
from tests.boot.damage import damages

BODY = {"checkpoint": "init_start", "started": ["a", "ü"], "n": 1.5, "none": None}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_what_was_sealed_comes_back(body: dict[str, object]) -> None:
    assert unseal(seal(body)) == body


def test_every_truncation_zeroing_and_flipped_bit_is_noticed() -> None:
    for damaged in damages(seal(BODY)):
        with pytest.raises(DamagedFileError):
            unseal(damaged)


@given(st.binary())
def test_no_bytes_make_it_fail_in_any_other_way(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        unseal(data)


@given(json_values)
def test_json_that_was_never_sealed_is_damaged(value: object) -> None:
    with pytest.raises(DamagedFileError):
        unseal(json.dumps({"format": 1, "sha256": "0" * 64, "body": value}).encode())


@pytest.mark.parametrize("depth", [100, 500, 900, 990, 1000, 5000, 100_000])
def test_json_nested_too_deeply_is_damaged(depth: int) -> None:
    text = b'{"body":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    with pytest.raises(DamagedFileError):
        unseal(text)


def test_a_later_format_is_not_guessed_at() -> None:
    later = seal(BODY).replace(b'"format":1', b'"format":2')
    with pytest.raises(DamagedFileError):
        unseal(later)


def test_appended_bytes_are_damage() -> None:
    with pytest.raises(DamagedFileError):
        unseal(seal(BODY) + b"\n")


def test_no_file_is_no_damage(tmp_path: Path) -> None:
    assert read_sealed(tmp_path / "none.json") is None


def test_a_written_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_sealed(path, BODY)

    assert read_sealed(path) == BODY
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_what_cannot_be_written_as_json_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_sealed(path, BODY)
    with pytest.raises(TypeError):
        write_sealed(path, {"object": object()})

    assert read_sealed(path) == BODY

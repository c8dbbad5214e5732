from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron._native import hde
from novacron._native.ffi import (
    NativeIntegrityError,
    NativeInvalidError,
    NativeUnavailableError,
    native,
)

CODED = ("lz4", "zstd")
LEVEL = st.integers(hde.LEVEL_MIN, 9)
SMALL = hde.BlockSizes(256, 1024, 4096)
# Content with something to find in it: pieces that repeat, zeros, and noise between them.
CONTENT = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.integers(1, 300).map(bytes),
        st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 60)).map(lambda p: p[0] * p[1]),
    ),
    min_size=1,
    max_size=8,
).map(b"".join)


@pytest.fixture(scope="module")
def codec() -> Iterator[hde.Codec]:
    with hde.Codec() as opened:
        yield opened


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_the_machine_says_what_it_has() -> None:
    assert hde.available() == ("raw", "lz4", "zstd")
    assert hde.version("zstd").startswith("1.")
    assert hde.version("lz4").startswith("1.")
    assert hde.version("raw") == ""
    assert [hde.missing(name) for name in hde.CODECS] == ["", "", ""]
    with pytest.raises(NativeInvalidError, match="no codec 'gzip'"):
        hde.version("gzip")


def test_the_constants_are_those_of_the_c_side() -> None:
    lib = native().lib
    assert tuple(getattr(lib, f"NC_CODEC_{name.upper()}") for name in hde.CODECS) == (0, 1, 2)
    assert getattr(lib, "NC_CODEC_COUNT") == len(hde.CODECS)  # noqa: B009
    assert getattr(lib, "NC_CODEC_MAX_CONTENT") == hde.MAX_CONTENT_BYTES  # noqa: B009
    assert getattr(lib, "NC_CODEC_LEVEL_MIN") == hde.LEVEL_MIN  # noqa: B009
    assert getattr(lib, "NC_CODEC_LEVEL_MAX") == hde.LEVEL_MAX  # noqa: B009


@pytest.mark.parametrize(
    ("codec_name", "library", "reason"),
    [
        ("zstd", "libnonesuch.so.9", "libnonesuch.so.9"),
        ("lz4", "libzstd.so.1", "the library has no LZ4_versionString"),
    ],
)
def test_a_library_that_is_missing_or_another_one_is_unavailable(
    codec_name: str, library: str, reason: str
) -> None:
    # In a process of its own: in this one a library may have been loaded already.
    code = (
        "import sys; from novacron._native import hde, ffi\n"
        "try: hde.load(*sys.argv[1:])\n"
        "except ffi.NativeUnavailableError as exc: print(exc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, codec_name, library],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"there is no usable {codec_name} here" in done.stdout
    assert reason in done.stdout


@given(CONTENT, st.sampled_from(hde.CODECS), LEVEL)
def test_what_is_encoded_is_decoded(
    codec: hde.Codec, content: bytes, name: str, level: int
) -> None:
    level = max(level, 1) if name == "lz4" else level
    coded = codec.encode(name, content, level=level, capacity=len(content) + 600)
    assert coded is not None
    assert codec.decode(name, coded, len(content)) == content
    # The libraries ask for a little more room than they use in the end.
    assert codec.encode(name, content, level=level, capacity=len(coded) + 20) == coded
    assert codec.encode(name, content, level=level, capacity=len(coded) - 1) is None


@pytest.mark.parametrize("name", CODED)
def test_a_whole_chunk_becomes_small_and_noise_is_left_as_it_is(
    codec: hde.Codec, name: str
) -> None:
    chunk = b"a line of a log, over and over\n" * (hde.MAX_CONTENT_BYTES // 31)
    coded = codec.encode(name, chunk, level=6)
    assert coded is not None
    assert len(coded) < len(chunk) // 100
    assert codec.decode(name, coded, len(chunk)) == chunk
    assert codec.encode(name, noise(100_000)) is None
    assert codec.encode(name, b"x") is None
    assert 0 < codec.memory < 100 * 2**20


@given(st.binary(max_size=200), st.sampled_from(CODED), st.integers(1, 5000))
def test_bytes_that_nobody_encoded_are_refused_or_are_what_was_agreed_on(
    codec: hde.Codec, coded: bytes, name: str, size: int
) -> None:
    try:
        content = codec.decode(name, coded, size)
    except NativeIntegrityError:
        return
    assert len(content) == size


@given(CONTENT, st.sampled_from(CODED), st.data())
def test_what_was_changed_on_the_way_gives_no_more_and_no_less_than_was_agreed_on(
    codec: hde.Codec, content: bytes, name: str, choice: st.DataObject
) -> None:
    coded = bytearray(codec.encode(name, content, capacity=len(content) + 600) or b"")
    for _ in range(choice.draw(st.integers(1, 3))):
        coded[choice.draw(st.integers(0, len(coded) - 1))] = choice.draw(st.integers(0, 255))
    try:
        assert len(codec.decode(name, coded, len(content))) == len(content)
    except NativeIntegrityError:
        # And the next one, on the same contexts, is decoded.
        coded = bytearray(codec.encode(name, content, capacity=len(content) + 600) or b"")
        assert codec.decode(name, coded, len(content)) == content


@pytest.mark.parametrize("name", CODED)
def test_another_size_than_the_agreed_one_is_refused(codec: hde.Codec, name: str) -> None:
    coded = codec.encode(name, bytes(1_000_000))
    assert coded is not None
    for size in (1, 999_999, 1_000_001, hde.MAX_CONTENT_BYTES):
        with pytest.raises(NativeIntegrityError):
            codec.decode(name, coded, size)
    for wrong in (coded + b"\0", coded[:-1], coded + coded, b""):
        with pytest.raises(NativeIntegrityError):
            codec.decode(name, wrong, 1_000_000)


def test_what_one_call_cannot_take_is_invalid(codec: hde.Codec) -> None:
    too_much = bytes(hde.MAX_CONTENT_BYTES + 1)
    for name in hde.CODECS:
        with pytest.raises(NativeInvalidError, match="4194304"):
            codec.encode(name, too_much)
        with pytest.raises(NativeInvalidError, match="not 0"):
            codec.encode(name, b"")
    for size in (-1, 0, 2**62):
        with pytest.raises(NativeInvalidError, match="a chunk has 1 to"):
            codec.decode("zstd", b"", size)
    for level in (hde.LEVEL_MIN - 1, hde.LEVEL_MAX + 1):
        with pytest.raises(NativeInvalidError, match="zstd has no level"):
            codec.encode("zstd", b"abc", level=level)
    with pytest.raises(NativeInvalidError, match="no codec 'brotli'"):
        codec.encode("brotli", b"abc")


def test_a_closed_codec_says_so() -> None:
    codec = hde.Codec()
    codec.close()
    codec.close()
    with pytest.raises(NativeInvalidError, match="closed"):
        codec.encode("zstd", b"abc")
    with pytest.raises(NativeInvalidError, match="closed"):
        codec.decode("zstd", b"abc", 3)
    with pytest.raises(NativeInvalidError, match="closed"):
        _ = codec.memory


@pytest.mark.parametrize("size", [1, 255, 256, 70_000, hde.MAX_CONTENT_BYTES])
@pytest.mark.parametrize("level", [1, 6, 19])
def test_the_command_of_zstd_reads_what_is_encoded_and_is_read(
    codec: hde.Codec, size: int, level: int
) -> None:
    content = ((noise(1000) + bytes(3000)) * (size // 4000 + 1))[:size]

    def zstd(data: bytes, *options: str) -> bytes:
        return subprocess.run(
            ["zstd", "-q", "-c", *options], input=data, capture_output=True, check=True, timeout=60
        ).stdout

    coded = codec.encode("zstd", content, level=level, capacity=size + 600)
    assert coded is not None
    assert zstd(coded, "-d") == content
    theirs = zstd(content, f"-{level}", f"--stream-size={size}", "--single-thread")
    assert codec.decode("zstd", theirs, size) == content


@st.composite
def versions(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A block and a later version of it, with a few places written over."""
    base = draw(CONTENT)
    content = bytearray(base)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(base) - 1))
        piece = draw(st.binary(max_size=20))[: len(base) - at]
        content[at : at + len(piece)] = piece
    return base, bytes(content)


@given(versions())
def test_a_difference_makes_the_later_version_from_the_earlier(pair: tuple[bytes, bytes]) -> None:
    base, content = pair
    difference = hde.delta(content, base)
    assert difference is not None
    assert len(difference) <= len(content) + 16
    assert hde.undelta(difference, base) == content
    assert hde.delta(content, base, capacity=len(difference)) == difference
    assert hde.delta(content, base, capacity=len(difference) - 1) is None
    place = bytearray(base)
    hde.undelta_in_place(difference, place)
    assert place == content


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=300))
def test_a_difference_that_is_refused_leaves_the_base_as_it_was(
    difference: bytes, base: bytes
) -> None:
    place = bytearray(base)
    try:
        hde.undelta_in_place(difference, place)
    except NativeIntegrityError:
        assert place == base
        with pytest.raises(NativeIntegrityError):
            hde.undelta(difference, base)
    else:
        assert hde.undelta(difference, base) == place


def test_a_difference_is_of_two_blocks_of_one_size() -> None:
    with pytest.raises(NativeInvalidError, match="not of 2 from 3"):
        hde.delta(b"ab", b"abc")
    with pytest.raises(NativeInvalidError, match="not of 0 from 0"):
        hde.delta(b"", b"")
    # Items of another size than a byte: what counts are the bytes.
    with pytest.raises(NativeInvalidError, match="not of 8 from 2"):
        hde.delta(memoryview(bytes(8)).cast("I"), b"ab")


def test_hardly_anything_changed_takes_hardly_any_bytes() -> None:
    base = noise(1_000_000)
    content = bytearray(base)
    for at in range(0, len(base), 4096):
        content[at] ^= 0xFF
    difference = hde.delta(content, base)
    assert difference is not None
    assert len(difference) < 1200


@given(st.integers(0, 3000), st.data())
def test_one_byte_that_is_not_zero_is_seen(size: int, choice: st.DataObject) -> None:
    block = bytearray(size)
    assert hde.is_zero(block)
    if size:
        block[choice.draw(st.integers(0, size - 1))] = choice.draw(st.integers(1, 255))
        assert not hde.is_zero(block)


def test_blocks_cover_everything_and_none_is_too_small_or_large() -> None:
    data = noise(300_000)
    ends = hde.block_ends(SMALL, data)
    assert ends[-1] == len(data)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert all(SMALL.minimum < length <= SMALL.maximum for length in lengths[:-1])
    assert 0 < lengths[-1] <= SMALL.maximum
    assert 700 < sum(lengths) / len(lengths) < 1800
    assert hde.block_ends(SMALL, b"") == []
    assert hde.block_ends(SMALL, b"x") == [1]
    assert hde.block_ends(SMALL, b"x", last=False) == []


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 30_000), max_size=20))
def test_blocks_do_not_depend_on_the_pieces_a_file_is_read_in(seed: int, pieces: list[int]) -> None:
    data = noise(60_000, seed)
    found: list[int] = []
    start, have = 0, 0
    for piece in [*pieces, len(data)]:
        have = min(have + piece, len(data))
        ends = hde.block_ends(SMALL, data[start:have], last=have == len(data))
        found += [start + end for end in ends]
        start = found[-1] if found else 0
        assert have - start < SMALL.maximum
    assert found == hde.block_ends(SMALL, data)


@given(st.integers(0, 2**32), st.integers(0, 60_000), st.binary(max_size=500))
def test_what_is_inserted_changes_few_blocks(seed: int, at: int, inserted: bytes) -> None:
    before = noise(60_000, seed)
    after = before[:at] + inserted + before[at:]

    def blocks(data: bytes) -> set[bytes]:
        ends = hde.block_ends(SMALL, data)
        return {data[start:end] for start, end in zip([0, *ends], ends, strict=False)}

    new = blocks(after) - blocks(before)
    # One that the insertion is in, and what it takes until an end of before is an end again.
    assert sum(map(len, new)) < 30_000


def test_sizes_that_cannot_be_are_refused() -> None:
    for sizes in ((0, 0, 0), (64, 255, 300), (512, 256, 1024), (-1, 256, 1024), (64, 256, 2**32)):
        with pytest.raises(NativeInvalidError):
            hde.block_ends(hde.BlockSizes(*sizes), b"abc")


def test_without_the_compiled_module_all_of_it_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("novacron._native.ffi._native", None)
    monkeypatch.setattr("novacron._native.ffi.MODULE", "novacron._native._nothing")
    for call in (hde.available, hde.Codec, lambda: hde.is_zero(b""), lambda: hde.delta(b"", b"")):
        with pytest.raises(NativeUnavailableError):
            call()

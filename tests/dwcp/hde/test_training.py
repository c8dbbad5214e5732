"""Training dictionaries: the same twice, honest about what it gains, and not from too little."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from novacron.dwcp.hde.dictionary import file_of, read_dictionary, shipped_paths
from novacron.dwcp.hde.errors import TrainingError
from novacron.dwcp.hde.samples import messages
from novacron.dwcp.hde.training import (
    DEFAULT_BYTES,
    MIN_SAMPLES,
    SHIPPED_VERSION,
    gain_of,
    read_samples,
    shipped_content,
    train,
)

SAMPLES = messages(2000, seed=11)


def other_messages(count: int) -> list[bytes]:
    """Of another kind than the shipped dictionary was made for."""
    rng = random.Random(1)
    words = [rng.randbytes(8).hex() for _ in range(60)]
    return [" ".join(rng.choices(words, k=30)).encode() for _ in range(count)]


def test_samples_are_the_same_for_a_seed_and_differ_for_another() -> None:
    assert messages(300, seed=5) == messages(300, seed=5)
    assert messages(300, seed=5) != messages(300, seed=6)


def test_the_shipped_one_is_what_its_trainer_makes() -> None:
    (path,) = [path for path in shipped_paths() if path.stem == str(SHIPPED_VERSION)]
    made = shipped_content()
    assert made == shipped_content()
    assert len(made) == len(read_dictionary(path).content) == DEFAULT_BYTES


def test_what_is_gained_is_measured_on_messages_that_were_left_out() -> None:
    trained = train(SAMPLES)
    assert trained.samples + trained.gain.messages == len(set(SAMPLES))
    assert trained.gain.messages == pytest.approx(len(set(SAMPLES)) / 5, abs=1)
    assert trained.gain.trained < trained.gain.plain


def test_messages_of_another_kind_gain_by_a_dictionary_of_their_own() -> None:
    gain = train(other_messages(600)).gain
    assert gain.trained < 0.8 * gain.shipped


def test_the_same_messages_make_the_same_dictionary_in_any_order() -> None:
    found = train(SAMPLES).dictionary
    assert found.content == train(list(reversed(SAMPLES))).dictionary.content
    assert found.digest == hashlib.sha256(found.content).digest()
    assert found.retrained


def test_a_trained_one_can_be_written_and_read(tmp_path: Path) -> None:
    made = train(SAMPLES).dictionary
    path = tmp_path / "own.zdict"
    path.write_bytes(file_of(made.id, made.content))
    read = read_dictionary(path)
    assert (read.id, read.digest, read.content) == (made.id, made.digest, made.content)
    assert gain_of(read, SAMPLES[:50]).messages == 50


@pytest.mark.parametrize(
    ("samples", "size", "why"),
    [
        ([], DEFAULT_BYTES, "0 that differ"),
        (SAMPLES[: MIN_SAMPLES - 1], 1024, f"it takes {MIN_SAMPLES} messages"),
        ([SAMPLES[0]] * 1000, 1024, "1 that differ"),
        (SAMPLES[:200], 65536, "655360 bytes"),
    ],
    ids=range(4),
)
def test_too_little_is_refused_with_what_is_needed(
    samples: list[bytes], size: int, why: str
) -> None:
    with pytest.raises(TrainingError, match="too few messages") as caught:
        train(samples, size)
    assert why in caught.value.why
    assert "--size" in caught.value.remedy


@pytest.mark.parametrize("size", [0, 1023, 256 * 1024 + 1])
def test_a_size_that_makes_no_sense_is_refused(size: int) -> None:
    with pytest.raises(TrainingError, match=f"dictionary of {size} bytes"):
        train(SAMPLES, size)


def test_messages_are_read_from_files_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"three")
    (tmp_path / "inner").mkdir()
    assert read_samples(tmp_path) == [b"one", b"two"]
    with pytest.raises(TrainingError, match="No such file"):
        read_samples(tmp_path / "none")

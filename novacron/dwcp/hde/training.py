"""Training dictionaries for messages, and what they gain.

``python -m novacron.dwcp.hde.training`` makes the shipped one anew from
:mod:`~novacron.dwcp.hde.samples`. One that was shipped is never changed, only followed by another:
nodes tell dictionaries apart by id and hash, and would stop to use one that differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from novacron.dwcp.hde import dictionary
from novacron.dwcp.hde.dictionary import Dictionary, file_of, retrained_id
from novacron.dwcp.hde.errors import TrainingError
from novacron.dwcp.hde.messages import MAX_BYTES, MessageCodec
from novacron.record import Record

SHIPPED_VERSION: Final = 1
DEFAULT_BYTES: Final = 8192
"""Of 4096 to 65536 bytes, 8192 was within 1 % of the best on the shipped samples, and every node
keeps its tables in memory."""
MIN_SIZE: Final = 1024
MIN_SAMPLES: Final = 100
MIN_TIMES: Final = 10
"""Bytes of messages for each byte of the dictionary. Below about ten, what it holds is the samples
themselves and not what they have in common."""
HELD_OUT: Final = 5
"""Each fifth message is kept out of the training, to see what is gained on one that was not there."""
_SEGMENT: Final = 200
_DMER: Final = 8
"""Parameters of the COVER algorithm (Liao, Petri, Moffat, Wirth: Effective Construction of Relative
Lempel-Ziv Dictionaries, WWW 2016), given so that the result does not come from a search. With
segments of 200 bytes, about an entry of a listing, it was the best of 64, 200 and 1000 at 8 KiB."""


class Gain(Record):
    """What messages that were not trained with become. Bytes."""

    messages: int
    plain: int
    shipped: int
    """With the package's dictionary."""
    trained: int


class Trained(Record):
    dictionary: Dictionary
    samples: int
    gain: Gain


def read_samples(directory: Path) -> list[bytes]:
    """The messages in *directory*, a file each, in the order of their names.

    Raises:
      TrainingError: it cannot be read.
    """
    try:
        found = [
            path.read_bytes()
            for path in sorted(directory.iterdir())
            if path.is_file() and not path.name.startswith(".") and path.stat().st_size <= MAX_BYTES
        ]
    except OSError as exc:
        raise TrainingError(
            f"cannot read messages from {directory}", why=exc.strerror or str(exc)
        ) from exc
    return [message for message in found if message]


def train(messages: Sequence[bytes], size: int = DEFAULT_BYTES) -> Trained:
    """A dictionary of *size* bytes at most.

    Raises:
      TrainingError: there are too few messages, or too few bytes of them.
    """
    if not MIN_SIZE <= size <= dictionary.MAX_BYTES:
        raise TrainingError(
            f"cannot make a dictionary of {size} bytes",
            remedy=f"take {MIN_SIZE} to {dictionary.MAX_BYTES}",
        )
    # Those that are there several times would be on both sides of the split.
    ordered = sorted(set(messages), key=lambda message: hashlib.sha256(message).digest())
    held_out, used = ordered[::HELD_OUT], [m for i, m in enumerate(ordered) if i % HELD_OUT]
    total = sum(map(len, used))
    needed = MIN_TIMES * size
    if len(ordered) < MIN_SAMPLES or total < needed:
        raise TrainingError(
            "there are too few messages to train from",
            why=f"{len(ordered)} that differ, with {total} bytes to train with; it takes "
            f"{MIN_SAMPLES} messages and {needed} bytes for a dictionary of {size}",
            remedy="collect more, or make a smaller one with --size",
        )
    content = train_content(used, size)
    made = Dictionary(retrained_id(content), hashlib.sha256(content).digest(), content, "(trained)")
    return Trained(made, len(used), gain_of(made, held_out))


def train_content(messages: Sequence[bytes], size: int) -> bytes:
    """As zstd takes it. The same for the same messages and the same version of the library."""
    import zstandard

    try:
        found = zstandard.train_dictionary(
            size, list(messages), k=min(_SEGMENT, size), d=_DMER, level=6
        )
    except zstandard.ZstdError as exc:
        raise TrainingError(
            "no dictionary can be made of these messages",
            why=str(exc),
            remedy="collect others: they have too little in common, or are too short",
        ) from exc
    content: bytes = found.as_bytes()
    return content


def gain_of(trained: Dictionary, messages: Iterable[bytes]) -> Gain:
    codec = MessageCodec()
    codec.load()
    shipped = codec.common({one.id: one.digest for one in codec.dictionaries})
    codec.add(trained)
    count = plain = with_shipped = with_trained = 0
    for message in messages:
        count += 1
        plain += len(message)
        with_shipped += len(codec.encode(message, shipped))
        with_trained += len(codec.encode(message, trained.id))
    return Gain(count, plain, with_shipped, with_trained)


def shipped_content() -> bytes:
    from novacron.dwcp.hde.samples import messages

    return train_content(messages(4000), DEFAULT_BYTES)


if __name__ == "__main__":
    path = dictionary.SHIPPED / f"{SHIPPED_VERSION}.zdict"
    path.write_bytes(file_of(SHIPPED_VERSION, shipped_content()))

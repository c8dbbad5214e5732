"""Writes ``tests/vectors/amst/`` anew: ``python -m tests.dwcp.amst.vector_files``.

``test_vectors.py`` holds the files to what is made here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.dwcp.amst import link_vectors, vectors
from tests.dwcp.amst.vectors import Case

FOLDER = Path(__file__).parents[2] / "vectors" / "amst"

FILES: dict[str, tuple[str, Callable[[], list[Case]]]] = {
    "headers": (
        "Headers that are taken, with their fields; the checksum begins with `seed`.",
        vectors.headers,
    ),
    "invalid_headers": (
        "Headers that are refused where chunks of `max_chunk` bytes were agreed on. `reason` is how"
        " this implementation begins to say why.",
        vectors.invalid_headers,
    ),
    "acks": ("Acknowledgements that are taken.", vectors.acks),
    "invalid_acks": ("Acknowledgements that are refused.", vectors.invalid_acks),
    "keys": (
        "The key schedule: `context` from the link's id and the two certificates, then `seed`, and"
        " `key` and `iv` of one epoch of one stream in one direction.",
        link_vectors.keys,
    ),
    "hello": (
        "The first frame of each direction: header, link id, random, tag.",
        link_vectors.hello,
    ),
    "sealed": (
        "Frames of an encrypted link: header, encrypted payload, tag. `payload` is what comes out.",
        link_vectors.sealed,
    ),
    "forged": (
        "Frames whose headers are taken and whose tags do not hold.",
        link_vectors.forged,
    ),
}


def text_of(name: str) -> str:
    """What ``NAME.json`` holds."""
    note, cases = FILES[name]
    return json.dumps({"note": note, "cases": cases()}, indent=2) + "\n"


def cases_of(name: str) -> list[Case]:
    """The cases as they stand in the file."""
    cases: list[Case] = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return cases


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text_of(name))

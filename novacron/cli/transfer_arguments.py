"""What operators write about transfers: NODE:PATH, rates, and paths of this host."""

from __future__ import annotations

import argparse
import os
import re

from novacron.errors import ApiError, InvalidError

_RATE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kKMGT]?)(i?)(B|bit)?(?:/s)?")
_CODEC = re.compile(r"(auto|off|lz4|zstd)(?::(-?[0-9]{1,2}))?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MAX_RATE = 2**63 - 1


class TransferArgumentError(ApiError, InvalidError):
    """An argument that names no node, no path, or several nodes."""

    code = "cli.argument"


def split_target(text: str) -> tuple[str, str]:
    """Node and path of ``NODE:PATH``.

    The node ends at the first colon, or at the second where only digits, a port, stand between them.
    An IPv6 address stands in brackets. An empty path is the first directory for transfers.

    Raises:
      TransferArgumentError: there is no node in it.
    """
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        node, colon = host + bracket, rest[:1] if bracket and len(host) > 1 else ""
        rest = rest[1:]
    else:
        node, colon, rest = text.partition(":")
    if colon != ":" or not node:
        raise TransferArgumentError(
            f"cannot tell the node in {text!r}",
            why="it is not NODE:PATH",
            remedy="write it like node-2:/srv/images/ or 192.0.2.11:7401:in/; `novacron peers` "
            "lists the nodes",
        )
    port, colon, path = rest.partition(":")
    if colon and port.isascii() and port.isdigit():
        return f"{node}:{port}", path or "./"
    return node, rest or "./"


def split_sources(texts: list[str]) -> tuple[str, list[str]]:
    """The one node of several ``NODE:PATH``, and the paths.

    Raises:
      TransferArgumentError: one is none, or they name several nodes.
    """
    split = [split_target(text) for text in texts]
    nodes = {node for node, _ in split}
    if len(nodes) > 1:
        raise TransferArgumentError(
            "cannot receive from several nodes at once",
            why=f"{' and '.join(sorted(nodes))} are named",
            remedy="run one command for each node",
        )
    return nodes.pop(), [path for _, path in split]


def local_path(text: str) -> str:
    """*text* as this process would find it: absolute, for a node that stands elsewhere.

    The last part is left alone, so that the node sees whether it is a link, and a ``/`` at the end is
    kept. What has no name of its own (``.``, ``..``, ``a/.``) ends in ``/.``: to a node that sends it,
    what is in the directory; to one that receives, the directory to put things in.
    """
    if not text:
        raise TransferArgumentError(
            "cannot use an empty path", why="it names nothing", remedy="write . for this directory"
        )
    directory, name = os.path.split(text.rstrip("/") or "/")
    if name in ("", ".", ".."):
        return os.path.realpath(text).rstrip("/") + "/."
    path = os.path.join(os.path.realpath(directory or "."), name)
    return path + "/" if text.endswith("/") else path


def rate(text: str) -> int:
    """Bytes a second of ``10M``, ``1.5GiB/s``, ``800Mbit`` or ``none``; for argparse."""
    if text in ("none", "0"):
        return 0
    match = _RATE.fullmatch(text.strip())
    if match is not None:
        number, power, binary, unit = match.groups()
        base = 1024 if binary else 1000
        value = float(number) * base ** _POWERS[power.lower()] / (8 if unit == "bit" else 1)
        if (power or not binary) and 1 <= value <= _MAX_RATE:
            return int(value)
    raise argparse.ArgumentTypeError(
        "write 500k, 10M, 1.5G (bytes a second, thousands), 64MiB (of 1024), 800Mbit, or none"
    )


def codec(text: str) -> str:
    """``auto``, ``off``, ``lz4``, ``zstd`` or ``zstd:LEVEL``; for argparse."""
    match = _CODEC.fullmatch(text)
    if match is not None:
        name, level = match.groups()
        if level is None or (name == "zstd" and -7 <= int(level) <= 19):
            return text
    raise argparse.ArgumentTypeError("write auto, off, lz4, zstd, or zstd:LEVEL from -7 to 19")

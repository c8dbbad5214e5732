"""Reading configuration files: size, encoding, format, and where a mistake stands."""

from __future__ import annotations

import hashlib
from pathlib import Path

from novacron.config import documents
from novacron.config.documents import MAX_FILE_BYTES, DocumentError, Node
from novacron.config.errors import ConfigUnreadableError, Problem
from novacron.config.provenance import Source
from novacron.record import Record


class Document(Record):
    root: Node | None
    """None when it could not be parsed; the problem is noted."""
    digest: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    text: str


def read_bytes(path: Path) -> bytes:
    """The content of *path*, if it is of a plausible size.

    Raises:
      ConfigUnreadableError: missing, not permitted, a directory, too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise ConfigUnreadableError(
            f"cannot read the configuration file {path}",
            why="it does not exist",
            remedy="correct the path given with --config; without --config the defaults are used",
        ) from exc
    except IsADirectoryError as exc:
        raise ConfigUnreadableError(
            f"cannot read the configuration file {path}",
            why="it is a directory",
            remedy="name a YAML or JSON file in it",
        ) from exc
    except PermissionError as exc:
        raise ConfigUnreadableError(
            f"cannot read the configuration file {path}",
            why="permission is denied to the user this runs as",
            remedy="make it and the directories above it readable for that user",
        ) from exc
    except OSError as exc:
        raise ConfigUnreadableError(
            f"cannot read the configuration file {path}",
            why=exc.strerror or str(exc),
            remedy="make the file readable",
        ) from exc
    if len(data) > MAX_FILE_BYTES:
        raise ConfigUnreadableError(
            f"cannot use the configuration file {path}",
            why=f"it is larger than {MAX_FILE_BYTES} bytes",
            remedy="check that it is the file you meant",
        )
    return data


def digest_of_file(path: Path) -> str:
    """SHA-256 of *path* in hexadecimal. Raises as :func:`read_bytes`."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_document(path: Path, problems: list[Problem]) -> Document:
    """Read and parse *path*: JSON when its name ends so, YAML otherwise.

    Raises:
      ConfigUnreadableError: as :func:`read_bytes`; a mistake inside goes to *problems*.
    """
    data = read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    source = Source("file", str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.append(
            Problem("", source._replace(line=line), "the file is not UTF-8 text; save it as UTF-8")
        )
        return Document(None, digest, "")
    try:
        root = _parse(path, text)
    except DocumentError as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
        place = f" (line {error.line}, column {error.column})" if error.line else ""
        problems.append(
            Problem(
                "",
                source._replace(line=error.line, column=error.column),
                f"{kind}: {error.message}{place}",
                excerpt=documents.excerpt(text, error.line, error.column),
            )
        )
        return Document(None, digest, text)
    return Document(root, digest, text)


def _parse(path: Path, text: str) -> Node:
    if path.suffix.lower() == ".json":
        return documents.parse_json(text)
    from novacron.config.yaml_document import parse_yaml

    return parse_yaml(text)

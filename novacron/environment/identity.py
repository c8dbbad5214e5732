"""Which node this is: a UUID made or adopted once and kept in the data directory.

A hostname changes, is cloned and is shared; a stored UUID does not. So the identity is never
guessed: a damaged file stops the boot and stays as it is, because a node that comes back under
another name is a stranger to its peers and to its own certificates.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import ClassVar

import trio

from novacron.component import Component, Criticality, Phase
from novacron.config.schema import SystemSettings
from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.environment.data_access import data_directory_error
from novacron.errors import (
    ConflictError,
    EnvironmentProbeError,
    InvalidError,
    LocalProtocolError,
    NotFoundError,
)
from novacron.units import NodeId

logger = logging.getLogger("novacron.environment.identity")

FORMAT = 1
MAX_FILE_BYTES = 4096
"""The file is 200 bytes; one that is much larger is not ours."""

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class IdentityCorruptError(EnvironmentProbeError, InvalidError):
    """``identity.json`` is there and cannot be trusted."""

    code = "environment.identity_corrupt"


class IdentityMissingError(EnvironmentProbeError, NotFoundError):
    """A node has lived in this data directory, and its identity is gone."""

    code = "environment.identity_missing"


class IdentityConflictError(EnvironmentProbeError, ConflictError):
    """The configured node ID is not the stored one."""

    code = "environment.identity_conflict"


def encode_identity(node_id: NodeId, created_at: float) -> bytes:
    """The content of ``identity.json``: readable, and protected against silent damage."""
    document = {"format": FORMAT, "node_id": node_id, "created_at": created_at}
    return (json.dumps({**document, "sha256": _digest(document)}, indent=2) + "\n").encode()


def decode_identity(data: bytes) -> NodeId:
    """The node ID in the content of ``identity.json``.

    Raises:
      ValueError: with the reason, fit for a message; nothing of the content is repeated.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    if not data.strip(b"\0 \t\r\n"):
        raise ValueError("it is empty or all zeros, as after a power cut")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    digest = document.pop("sha256", None)
    if document.get("format") != FORMAT:
        raise ValueError("it has a format this version does not know")
    if digest != _digest(document):
        raise ValueError("its checksum does not fit its content")
    node_id = document.get("node_id")
    if not isinstance(node_id, str) or not UUID.fullmatch(node_id):
        raise ValueError("it holds no node ID")
    return NodeId(node_id)


class Identity(Component):
    """The node's UUID, from ``identity.json``; made, or adopted from ``system.node_id``, once."""

    name: ClassVar[str] = "identity"
    phase: ClassVar[Phase] = Phase.PRE_INIT
    criticality: ClassVar[Criticality] = Criticality.CRITICAL

    def __init__(self, settings: SystemSettings, data_directory: DataDirectory) -> None:
        self._configured = settings.node_id
        self._data_directory = data_directory
        self._node_id: NodeId | None = None

    @property
    def node_id(self) -> NodeId:
        """The node's UUID in canonical form.

        Raises:
          LocalProtocolError: asked before ``initialize``.
        """
        if self._node_id is None:
            raise LocalProtocolError("the node's identity was asked before it was read")
        return self._node_id

    async def initialize(self, nursery: trio.Nursery) -> None:
        """
        Raises:
          IdentityCorruptError, IdentityMissingError, IdentityConflictError: see there; the file is untouched.
          DataDirectoryError: the file cannot be read or written.
        """
        self._node_id = await trio.to_thread.run_sync(self._establish)

    async def shutdown(self) -> None:
        """Nothing is held. The identity stays known for those who stop later."""

    def _establish(self) -> NodeId:
        path = self._data_directory.identity
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return self._found(path)
        except OSError as exc:
            raise data_directory_error("read the node's identity", path, exc) from exc
        try:
            stored = decode_identity(data)
        except ValueError as exc:
            raise IdentityCorruptError(
                f"the node's identity in {path} cannot be used",
                why=str(exc),
                remedy="restore the file from a backup; or, to go on with the UUID this node had, "
                "move the file away and set system.node_id to it (peers and old logs show it)",
                key="system.node_id",
            ) from None
        if self._configured is not None and self._configured != stored:
            raise IdentityConflictError(
                f"this data directory belongs to node {stored}",
                why=f"the configuration asks for node {self._configured}",
                remedy="remove system.node_id to go on as the stored node, or give the other node "
                "a data directory of its own (system.data_dir)",
                key="system.node_id",
            )
        return stored

    def _found(self, path: Path) -> NodeId:
        if self._configured is None and (traces := self._traces()):
            raise IdentityMissingError(
                f"there is no {path}",
                why=f"a node has lived in this data directory ({traces} is there), "
                "and a new identity would make it a stranger to its peers",
                remedy="restore the file from a backup, set system.node_id to the UUID the node "
                "had, or start a new node in another directory (system.data_dir)",
                key="system.node_id",
            )
        node_id = NodeId(self._configured or new_node_id())
        try:
            write_durably(path, encode_identity(node_id, round(time.time(), 3)))
        except OSError as exc:
            raise data_directory_error("store the node's identity", path, exc) from exc
        logger.info(
            "this node is %s from now on",
            node_id,
            extra={"node_id": node_id, "adopted": self._configured is not None},
        )
        return node_id

    def _traces(self) -> Path | None:
        """What only a node that got past this component leaves behind."""
        path = self._data_directory.database / "novacron.db"
        return path if path.exists() else None


def new_node_id() -> str:
    """A random UUID, version 4 (RFC 9562). The ``uuid`` module would cost every boot its import."""
    value = bytearray(os.urandom(16))
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    text = value.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _digest(document: dict[str, object]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

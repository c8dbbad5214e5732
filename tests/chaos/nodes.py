"""Nodes on shared servers, as processes."""

from __future__ import annotations

import json
from typing import Any

from bench.backends import Backends
from tests.chaos.meter import Meter
from tests.integration.node_process import ANY_HOST, NodeProcess


def start_node(
    backends: Backends,
    name: str,
    *arguments: str,
    meter: Meter | None = None,
    **settings: Any,
) -> NodeProcess:
    """A node in the directory *name* below that of *backends*, started and not waited for.
    *settings* are sections that take the place of those of the common configuration."""
    directory = backends.directory / name
    directory.mkdir(exist_ok=True)
    path = directory / "node.json"
    path.write_text(json.dumps({**backends.configuration(), **settings}))
    module = ("novacron.boot",)
    if meter is not None:
        module = ("tests.chaos.metered_node", str(meter.path))
    return NodeProcess(
        directory / "data",
        *ANY_HOST,
        "--config",
        str(path),
        *arguments,
        module=module,
    )

"""The nodes registered in a store: who is there, under which addresses, since when."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from novacron.database.store import Reader, Store
from novacron.record import Record
from novacron.units import NodeId


class Registration(Record):
    node_id: NodeId
    boot_id: str
    addresses: Mapping[str, str]
    """``rest``, ``metrics``, ``peer`` → ``host:port``."""
    started: float
    """Seconds since the epoch."""
    stopped: float | None
    """None: it runs, or died without saying so."""


async def register(
    store: Store,
    node_id: NodeId,
    boot_id: str,
    addresses: Mapping[str, str],
    *,
    started: float | None = None,
) -> None:
    """Note that *node_id* runs as *boot_id*; replaces what was noted of earlier boots."""
    await store.execute(
        "INSERT INTO node_registration (node_id, boot_id, addresses, started, stopped)"
        " VALUES (:node_id, :boot_id, :addresses, :started, NULL)"
        " ON CONFLICT (node_id) DO UPDATE SET boot_id = excluded.boot_id,"
        " addresses = excluded.addresses, started = excluded.started, stopped = NULL",
        {
            "node_id": node_id,
            "boot_id": boot_id,
            "addresses": json.dumps(dict(addresses), sort_keys=True),
            "started": time.time() if started is None else started,
        },
    )


async def deregister(
    store: Store, node_id: NodeId, boot_id: str, *, stopped: float | None = None
) -> bool:
    """Note that the boot *boot_id* of *node_id* ended; whether there was anything to note.

    Harmless when repeated, and when a later boot has registered since: that one stays.
    """
    changed = await store.execute(
        "UPDATE node_registration SET stopped = :stopped"
        " WHERE node_id = :node_id AND boot_id = :boot_id AND stopped IS NULL",
        {
            "node_id": node_id,
            "boot_id": boot_id,
            "stopped": time.time() if stopped is None else stopped,
        },
    )
    return changed > 0


async def list_registrations(store: Reader, *, running: bool = False) -> list[Registration]:
    """Every node known, by id; *running*: only those that did not deregister."""
    where = " WHERE stopped IS NULL" if running else ""
    rows = await store.fetch_all(
        "SELECT node_id, boot_id, addresses, started, stopped FROM node_registration"
        f"{where} ORDER BY node_id"
    )
    return [
        Registration(n, b, json.loads(a), started, stopped) for n, b, a, started, stopped in rows
    ]

"""PostgreSQL on a disk that is full: nothing acknowledged is lost, and it goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.backends import Backends
from bench.rest_load import Load
from bench.servers.postgresql import PostgreSQL
from tests.chaos.faults import no_room
from tests.chaos.meter import Meter
from tests.chaos.nodes import start_node
from tests.chaos.test_under_load import UNABLE, WHOLE, WRITE, Loaded, statuses

SIZE = "192m"
"""A new cluster of PostgreSQL takes some 60 MB; a segment of its log is 16 MB."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = Path("/tmp") / f"novacron-small-{os.getpid()}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], check=True)
    try:
        (place / "server").mkdir()
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def test_a_full_disk_below_postgresql_loses_nothing_and_is_over_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    meter = Meter(tmp_path / "meter")
    with (
        PostgreSQL(directory=small_disk / "server") as server,
        Backends(tmp_path / "site", postgresql=server) as backends,
    ):
        limits = {"api": {"rate_limit": 1_000_000, "rate_burst": 1_000_000}}
        with start_node(backends, "node", meter=meter, cache={}, **limits) as node:
            loaded = Loaded(node, meter)
            with Load(loaded.client) as load:
                time.sleep(1.0)
                load.take()
                with no_room(small_disk):
                    time.sleep(4.0)
                if not server.running:
                    # Without room for its log PostgreSQL ends itself.
                    server.kill()
                    server.start()
                loaded.wait_whole()
                time.sleep(1.0)
                outcomes = load.take()
            found = statuses(outcomes)
            assert set(found["/livez"]) == {200}
            assert set(found["/api/v1/status"]) == {200}
            assert set(found[WRITE]) <= WHOLE | UNABLE | {507}, found[WRITE]
            assert load.acknowledged
            kept = set(server.psql("SELECT id FROM api_token").split())
            assert set(load.acknowledged) <= kept
    meter.close()

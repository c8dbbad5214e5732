"""kill -9 at every change a boot makes to the file system: the next boot ends as an undisturbed one.

One child process imports everything once and forks for each crash point, so that a hundred boots
take seconds. In a fork the audit hook counts what changes the file system and kills at the n-th.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from novacron.database.backup import make_backup
from novacron.database.connection import open_reader, open_writer
from novacron.database.schema import revisions

CHILD = """
import json, os, shutil, signal, sys
from pathlib import Path
from tests.database.support import open_and_close, kept
import novacron.database.migrate
import alembic.command, sqlalchemy.pool

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect"}

def boot(root, fatal):
    pid = os.fork()
    if pid == 0:
        seen = 0
        def hook(event, arguments):
            nonlocal seen
            if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                seen += 1
                if seen == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
        if fatal:
            sys.addaudithook(hook)
        try:
            notices = open_and_close(root)
        except BaseException as error:
            print(repr(error), error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

source, work = Path(sys.argv[1]), Path(sys.argv[2])
results = []
for fatal in range(1, 200):
    root = work / str(fatal)
    if source.exists():
        shutil.copytree(source, root)
    first = boot(root, fatal)
    second = boot(root, 0)
    boxes = [
        sorted([p.name, p.read_bytes().hex()[:64], p.stat().st_size] for p in box.iterdir())
        for box in kept(root)
    ]
    results.append([first, second, boxes, sorted(p.name for p in (root / "database").iterdir())])
    if first == 0:
        break
    shutil.rmtree(root)
print(json.dumps(results))
"""


def crash_everywhere(source: Path, work: Path) -> list[list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(work)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results: list[list[object]] = json.loads(done.stdout)
    *killed, undisturbed = results
    assert len(killed) >= 4, "there is something to interrupt"
    assert undisturbed[:2] == [0, 0]
    assert all(first == 9 for first, *_ in killed)
    assert all(second == 0 for _, second, *_ in killed)
    return results


def test_a_first_boot_can_be_killed_anywhere(tmp_path: Path) -> None:
    for _first, _second, boxes, files in crash_everywhere(tmp_path / "none", tmp_path):
        assert boxes == []
        assert files == ["novacron.db", "novacron.db.created"]


@pytest.mark.parametrize("backed_up", [True, False], ids=["with a backup", "without"])
def test_a_repair_can_be_killed_anywhere(root: Path, tmp_path: Path, backed_up: bool) -> None:
    path = DataDirectory(root).database / "novacron.db"
    if backed_up:
        raw = open_reader(path)
        make_backup(raw, path, revisions()[-1])
        raw.close()
    raw = open_writer(path)
    raw.execute("DELETE FROM node_heartbeat")
    raw.execute("UPDATE node_registration SET started = 1")
    crashed = tmp_path / "crashed"
    shutil.copytree(root, crashed)
    raw.close()
    path = DataDirectory(crashed).database / "novacron.db"
    damaged = path.read_bytes()
    damaged = damaged[: 8 * 4096] + b"\xff" * (len(damaged) - 8 * 4096)
    path.write_bytes(damaged)
    log = Path(f"{path}-wal")
    assert log.stat().st_size > 0
    # The damaged pages are newer in the log: without it the damage shows.
    log_bytes = log.read_bytes()
    log.write_bytes(log_bytes[:-1])
    log_bytes = log_bytes[:-1]
    for _first, _second, boxes, files in crash_everywhere(crashed, tmp_path):
        assert isinstance(boxes, list)
        found = {tuple(entry) for box in boxes for entry in box if not entry[0].endswith("-shm")}
        assert ("novacron.db", damaged.hex()[:64], len(damaged)) in found
        assert ("novacron.db-wal", log_bytes.hex()[:64], len(log_bytes)) in found
        expected = ["novacron.db", "novacron.db.created"]
        assert files == (["backups", *expected] if backed_up else expected)

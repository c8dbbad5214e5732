"""Where the node keeps its things."""

from __future__ import annotations

import subprocess
import time

from tests.integration.failing_node import PATIENCE, Cause, Scene, Words


def not_permitted(scene: Scene) -> None:
    scene.as_nobody()
    scene.data.mkdir(mode=0o755)


def below_a_forbidden_directory(scene: Scene) -> None:
    scene.as_nobody()
    scene.data = scene.root / "system" / "node"
    scene.data.parent.mkdir(mode=0o755)


def of_another_user(scene: Scene) -> None:
    """The first start was root's, the second is an ordinary user's."""
    scene.booted_before()
    scene.as_nobody()


def is_a_file(scene: Scene) -> None:
    scene.data.write_text("notes\n")


def read_only(scene: Scene) -> None:
    scene.on_file_system("ro")


def full(scene: Scene) -> None:
    # Enough for the root directory, for one below it, and for no file.
    scene.on_file_system("size=4k,nr_inodes=2")


def nearly_full(scene: Scene) -> None:
    scene.on_file_system("size=1m")


def full_while_booting(scene: Scene) -> None:
    scene.on_file_system("size=48k")
    scene.settings["resources.min_free_disk_bytes"] = "0"


def used_by_another_node(scene: Scene) -> Words:
    ready = scene.root / "ready"
    other = subprocess.Popen(
        scene.command("--ready-file", str(ready)),
        cwd=scene.root,
        env=scene.surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def stop() -> None:
        other.terminate()
        other.wait(PATIENCE)

    scene.stack.callback(stop)
    patience = time.monotonic() + PATIENCE
    while not ready.exists():
        assert other.poll() is None, "the first node ended"
        assert time.monotonic() < patience, "the first node did not become READY"
        time.sleep(0.02)
    return {"pid": other.pid}


def ready_file_nowhere(scene: Scene) -> None:
    scene.arguments += ["--ready-file", str(scene.root / "run" / "ready.json")]


CAUSES = (
    Cause(
        "the data directory is not permitted",
        not_permitted,
        1,
        "the data directory {data} cannot be used",
        "permission denied to user nobody at {data}/boot; {data} belongs to user root and has mode "
        "0755",
        "give the directory to user nobody (chown -R), or set system.data_dir",
        "system.data_dir",
    ),
    Cause(
        "the directory above the data directory is not permitted",
        below_a_forbidden_directory,
        1,
        "the data directory {data} cannot be used",
        "permission denied to user nobody at {data}; {root}/system belongs to user root",
        "give the directory to user nobody (chown -R), or set system.data_dir",
        "system.data_dir",
    ),
    Cause(
        "the data directory is of another user",
        of_another_user,
        1,
        "the data directory {data} cannot be used",
        "permission denied to user nobody at {data}/lock; {data}/lock belongs to user root and has "
        "mode 0600",
        "run the node as the owner",
        "system.data_dir",
    ),
    Cause(
        "the data directory is a file",
        is_a_file,
        1,
        "the data directory {data} cannot be used",
        "{data} is there and is not a directory",
        "move it away, or set system.data_dir to a directory",
        "system.data_dir",
    ),
    Cause(
        "the file system is read-only",
        read_only,
        1,
        "the data directory {data} cannot be used",
        "its file system is mounted read-only",
        "mount it writable (the kernel makes it read-only after a disk error: see dmesg)",
        "system.data_dir",
    ),
    Cause(
        "the disk is full from the start",
        full,
        1,
        "the data directory {data} cannot be used",
        "its file system is full",
        "free some space there, or set system.data_dir to a larger file system",
        "system.data_dir",
    ),
    Cause(
        "the disk is nearly full",
        nearly_full,
        1,
        "too little free space in {data}",
        "KiB free, 64.0 MiB needed",
        "free some space, set system.data_dir to a larger file system, or lower",
        "resources.min_free_disk_bytes",
    ),
    Cause(
        "the disk gets full during the boot",
        full_while_booting,
        1,
        "the database {data}/database/novacron.db cannot be made or repaired",
        "no space is left on its file system",
        "free some space on the file system of {data}/database",
        "database.path",
    ),
    Cause(
        "two nodes on one data directory",
        used_by_another_node,
        1,
        "the data directory {data} is in use",
        "another node runs on it (pid {pid}, boot ",
        "stop that node first, or give this one a data directory of its own",
        "system.data_dir",
    ),
    Cause(
        "the ready file in a directory that is not there",
        ready_file_nowhere,
        1,
        "the ready file {root}/run/ready.json cannot be written",
        "there is no directory {root}/run",
        "create the directory or make it writable for this user, or name another file with "
        "--ready-file",
    ),
)

"""``/proc/self/mountinfo``: which file system a path lies on."""

from __future__ import annotations

from novacron.record import Record

_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Mount(Record):
    root: str
    """The directory inside the file system that is mounted."""
    point: str
    kind: str
    source: str
    options: frozenset[str]
    """Those of the file system, such as the controllers of a version 1 cgroup mount."""


def parse_mountinfo(text: str) -> list[Mount]:
    """Mounts in the kernel's order: a later one hides an earlier one on the same point.

    Lines of another shape are passed over. Format: proc_pid_mountinfo(5).
    """
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        options = frozenset(right[2].split(",")) if len(right) > 2 else frozenset()
        mounts.append(Mount(_plain(left[3]), _plain(left[4]), right[0], _plain(right[1]), options))
    return mounts


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that an absolute, resolved *path* lies on."""
    best: Mount | None = None
    for mount in mounts:
        inside = mount.point == "/" or path == mount.point or path.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _plain(text: str) -> str:
    if "\\" in text:
        for escape, character in _ESCAPES.items():
            text = text.replace(escape, character)
    return text

"""Confinement: nothing outside of the configured directories is ever opened or made."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.dwcp.amst.errors import PathDeniedError, TargetWriteError
from novacron.dwcp.amst.paths import Confinement, Place, fault_of_name, fault_of_path

OLD = "a" * 255


class Ground:
    """Two allowed directories, one inside the other's parent, and something to break into."""

    def __init__(self, root: Path) -> None:
        self.first = root / "first"
        self.second = root / "second" / "deep"
        self.outside = root / "outside"
        for directory in (self.first, self.second, self.outside):
            directory.mkdir(parents=True)
        (self.outside / "secret").write_text("secret")
        self.confinement = Confinement([self.first, self.second])
        self.outside_before = self.outside_now()

    def outside_now(self) -> list[str]:
        root = self.outside.parent
        return sorted(
            str(path)
            for path in root.rglob("*")
            if not path.is_relative_to(self.first) and not path.is_relative_to(self.second)
        )

    def where(self, place: Place) -> str:
        with place:
            return os.path.join(os.readlink(f"/proc/self/fd/{place.descriptor}"), place.name)

    def target(self, path: str, *, into: bool = False) -> str:
        return self.where(self.confinement.open_target(path, into=into))


@pytest.fixture
def ground(tmp_path: Path, no_leaks: None) -> Iterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    assert ground.outside_now() == ground.outside_before


def test_a_relative_path_is_below_the_first_directory(ground: Ground) -> None:
    assert ground.target("disk.img") == f"{ground.first}/disk.img"
    assert ground.target("a/b/disk.img") == f"{ground.first}/a/b/disk.img"
    assert stat.S_ISDIR((ground.first / "a/b").stat().st_mode)


def test_an_absolute_path_is_below_any_of_them(ground: Ground) -> None:
    assert ground.target(f"{ground.second}/disk.img") == f"{ground.second}/disk.img"
    assert ground.target(f"{ground.first}/x/disk.img") == f"{ground.first}/x/disk.img"


def test_slashes_and_dots_that_say_nothing_are_passed_over(ground: Ground) -> None:
    assert ground.target("a//./b") == f"{ground.first}/a/b"
    assert ground.target(f"/{ground.second}//disk") == f"{ground.second}/disk"


@pytest.mark.parametrize("path", ["there/", "there/.", "there//"])
def test_a_slash_at_the_end_makes_it_a_directory(ground: Ground, path: str) -> None:
    with ground.confinement.open_target(path, into=False) as place:
        assert place.name == ""
        assert place.path.rstrip("/") == f"{ground.first}/there"
    assert (ground.first / "there").is_dir()


def test_a_configured_directory_itself_is_a_directory(ground: Ground) -> None:
    assert ground.target(str(ground.second)) == f"{ground.second}/"
    assert ground.target(".") == f"{ground.first}/"


def test_into_makes_the_whole_way(ground: Ground) -> None:
    assert ground.target("x/y", into=True) == f"{ground.first}/x/y/"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("..", "not followed"),
        ("../outside/secret", "not followed"),
        ("a/../../outside/secret", "not followed"),
        ("/", "not below"),
        ("/etc/passwd", "not below"),
        ("a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("a\x1b[31mb", "control characters"),
        ("a\x85b", "control characters"),
        ("a\u2028b", "control characters"),
        ("a\udc80b", "not UTF-8"),
        ("a" * 256, "longer than 255"),
        ("ä" * 128, "longer than 255"),
        ("a/" * 2050, "longer than 4095"),
        (".disk.01234567.novacron-part", "unfinished"),
    ],
)
def test_what_is_no_path_inside_is_refused(ground: Ground, path: str, why: str) -> None:
    with pytest.raises(PathDeniedError, match=why) as caught:
        ground.confinement.open_target(path, into=False)
    assert caught.value.key == "dwcp.amst.directories"
    assert "\x1b" not in str(caught.value)
    assert "\0" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()
    assert not ground.confinement.contains(path)
    with pytest.raises(PathDeniedError):
        ground.confinement.open_source(path)


def test_siblings_with_the_same_beginning_are_outside(ground: Ground) -> None:
    with pytest.raises(PathDeniedError, match="not below"):
        ground.confinement.open_target(f"{ground.first}-2/disk", into=False)
    with pytest.raises(PathDeniedError, match="not followed"):
        ground.confinement.open_target(f"{ground.first}/../outside/secret", into=False)


def test_the_longest_name_and_a_long_way_are_fine(ground: Ground) -> None:
    assert ground.target(OLD) == f"{ground.first}/{OLD}"
    way = "/".join(["d" * 200] * 19)
    assert ground.target(f"{way}/x").endswith("/x")


def test_a_symbolic_link_on_the_way_is_refused(ground: Ground) -> None:
    (ground.first / "link").symlink_to(ground.outside)
    (ground.first / "inside").symlink_to(ground.second)
    for path in ("link/secret", "link/new/file", "inside/file", "link/"):
        with pytest.raises(PathDeniedError, match="symbolic link"):
            ground.confinement.open_target(path, into=False)
    with pytest.raises(PathDeniedError, match="symbolic link"):
        ground.confinement.open_target("link", into=True)
    with pytest.raises(PathDeniedError, match="symbolic link"):
        ground.confinement.open_source("link/secret")


def test_a_link_to_nowhere_is_not_made_good(ground: Ground) -> None:
    (ground.first / "link").symlink_to(ground.outside / "new")
    with pytest.raises(PathDeniedError, match="symbolic link"):
        ground.confinement.open_target("link/file", into=False)


def test_a_file_on_the_way_is_refused(ground: Ground) -> None:
    (ground.first / "file").write_text("")
    with pytest.raises(PathDeniedError, match="no directory"):
        ground.confinement.open_target("file/x", into=False)


def test_nothing_that_waits_or_acts_is_opened_on_the_way(ground: Ground) -> None:
    os.mkfifo(ground.first / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(ground.first / "socket"))
        for name in ("fifo", "socket"):
            with pytest.raises(PathDeniedError, match="no directory"):
                ground.confinement.open_target(f"{name}/x", into=False)


def test_the_configured_directory_may_be_a_symbolic_link(tmp_path: Path, no_leaks: None) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    confinement = Confinement([tmp_path / "link"])
    with confinement.open_target("a/b", into=False) as place:
        assert os.readlink(f"/proc/self/fd/{place.descriptor}") == str(tmp_path / "real" / "a")


def test_a_configured_directory_that_is_not_there_says_which_key(
    tmp_path: Path, no_leaks: None
) -> None:
    confinement = Confinement([tmp_path / "gone"])
    with pytest.raises(TargetWriteError, match="gone") as caught:
        confinement.open_target("x", into=False)
    assert caught.value.key == "dwcp.amst.directories"
    assert caught.value.remedy


def test_a_whole_machine_may_be_allowed(tmp_path: Path, no_leaks: None) -> None:
    confinement = Confinement([Path("/")])
    with confinement.open_target(f"{tmp_path}/x", into=False) as place:
        assert os.readlink(f"/proc/self/fd/{place.descriptor}") == str(tmp_path)
        assert place.path == f"{tmp_path}/x"


def test_made_directories_are_0755_at_most(ground: Ground) -> None:
    old = os.umask(0)
    try:
        ground.target("a/b/c")
    finally:
        os.umask(old)
    assert stat.S_IMODE((ground.first / "a" / "b").stat().st_mode) == 0o755


def test_reading_makes_nothing(ground: Ground) -> None:
    with pytest.raises(FileNotFoundError):
        ground.confinement.open_source("a/b/c")
    assert not list(ground.first.iterdir())


def test_a_directory_that_becomes_a_link_between_two_steps_is_not_followed(
    ground: Ground,
) -> None:
    """At every opened component in turn, the next one is replaced."""
    real = os.open
    for victim in ("a", "a/b", "a/b/c"):
        (ground.first / "a/b/c").mkdir(parents=True, exist_ok=True)
        swapped = False

        def swap(path: Any, flags: int, *rest: Any, victim: str = victim, **more: Any) -> int:
            nonlocal swapped
            if path == os.path.basename(victim) and not swapped:
                swapped = True
                os.rename(ground.first / victim, ground.first / "aside")
                os.symlink(ground.outside, ground.first / victim)
            return real(path, flags, *rest, **more)

        with (
            mock.patch.object(os, "open", swap),
            pytest.raises(PathDeniedError, match="symbolic link"),
        ):
            ground.confinement.open_target("a/b/c/new/file", into=False)
        assert swapped
        (ground.first / victim).unlink()
        os.rename(ground.first / "aside", ground.first / victim)


def test_a_directory_that_is_made_meanwhile_is_used(ground: Ground) -> None:
    real = os.mkdir

    def race(path: Any, mode: int, *, dir_fd: int) -> None:
        real(path, mode, dir_fd=dir_fd)
        real(path, mode, dir_fd=dir_fd)

    with mock.patch.object(os, "mkdir", race):
        assert ground.target("a/b") == f"{ground.first}/a/b"


def test_entries_go_below_their_place(ground: Ground) -> None:
    with ground.confinement.open_target("into", into=True) as place:
        with ground.confinement.open_below(place, "sub/dir/file") as below:
            assert below.path == f"{ground.first}/into/sub/dir/file"
            assert os.readlink(f"/proc/self/fd/{below.descriptor}").endswith("into/sub/dir")
        with ground.confinement.open_below(place, "file") as below:
            assert below.name == "file"
        (ground.first / "into" / "link").symlink_to(ground.outside)
        for path in ("link/x", "../x", "/etc/x", "a//b", "a/./b", "", "a/", "a/../b"):
            with pytest.raises(PathDeniedError):
                ground.confinement.open_below(place, path)


AWKWARD = st.sampled_from(
    [
        "",
        ".",
        "..",
        "a",
        "link",
        "loop",
        "file",
        "/",
        "//",
        "\0",
        "\n",
        "\udc80",
        OLD,
        "~",
        "%2e%2e",
    ]
)
PARTS = st.lists(st.one_of(AWKWARD, st.text(max_size=5)), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    parts=PARTS, absolute=st.sampled_from(["", "first", "second", "outside"]), into=st.booleans()
)
def test_no_path_whatever_leads_outside(
    ground: Ground, parts: list[str], absolute: str, into: bool
) -> None:
    (ground.first / "file").touch()
    for name, to in (("link", ground.outside), ("loop", ground.first / "loop")):
        if not (ground.first / name).is_symlink():
            (ground.first / name).symlink_to(to)
    path = "/".join(parts)
    if absolute:
        path = f"{getattr(ground, absolute)}/{path}"
    try:
        found = ground.target(path, into=into)
    except (PathDeniedError, TargetWriteError) as exc:
        str(exc).encode()
    else:
        inside = (str(ground.first) + "/", str(ground.second) + "/")
        assert found.startswith(inside)
        assert ".." not in found.split("/")
    assert ground.outside_now() == ground.outside_before


@given(st.text(max_size=300))
def test_a_name_without_fault_is_one_that_can_be_made(name: str) -> None:
    if fault_of_name(name):
        return
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert len(name.encode()) <= 255
    assert name.isprintable() or not any(ord(character) < 32 for character in name)
    assert not fault_of_path(f"a/{name}/b")

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from novacron.dwcp.amst.errors import (
    PathDeniedError,
    SourceChangedError,
    SourceInvalidError,
    SourceReadError,
)
from novacron.dwcp.amst.paths import Confinement
from novacron.dwcp.amst.sources import MAX_SKIPPED, Entry, Sources


@pytest.fixture(autouse=True)
def nothing_left_open(no_leaks: None) -> None:
    pass


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "vm"
    (root / "b" / "deeper").mkdir(parents=True)
    (root / "a.img").write_bytes(b"a" * 100)
    (root / "b" / "z").write_bytes(b"z")
    (root / "b" / "deeper" / "y").write_bytes(b"yy")
    (root / "B").mkdir()
    (root / "ä").write_bytes(b"")
    return root


def walk(paths: Sequence[str | Path], **options: Any) -> tuple[list[Entry], dict[str, str]]:
    sources = Sources([str(path) for path in paths], recursive=True, **options)
    try:
        return list(sources.entries()), {skip.path: skip.why for skip in sources.skipped}
    finally:
        sources.close()


def names(entries: list[Entry]) -> list[str]:
    return [entry.path + ("/" if entry.kind == "dir" else "") for entry in entries]


ALL = ["vm/", "vm/B/", "vm/a.img", "vm/b/", "vm/b/deeper/", "vm/b/deeper/y", "vm/b/z", "vm/ä"]


def test_a_directory_comes_before_what_is_in_it_and_names_in_the_order_of_bytes(
    tree: Path,
) -> None:
    entries, skipped = walk([tree])
    assert names(entries) == ALL
    assert [entry.position for entry in entries] == list(range(len(ALL)))
    assert not skipped
    assert walk([tree])[0] == entries


def test_a_slash_at_the_end_changes_nothing(tree: Path) -> None:
    assert names(walk([f"{tree}/"])[0]) == ALL
    assert names(walk([f"{tree}//"])[0]) == ALL


@pytest.mark.parametrize("path", ["{}/.", "{}/b/..", "{}/./"])
def test_a_path_without_a_name_gives_what_is_in_it(tree: Path, path: str) -> None:
    found = names(walk([path.format(tree)])[0])
    assert found == [name.removeprefix("vm/") for name in ALL[1:]]


def test_the_working_directory_may_be_sent(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names(walk(["."])[0])[:2] == ["B/", "a.img"]
    assert names(walk(["b/z"])[0]) == ["z"]


def test_a_path_without_a_name_goes_alone(tree: Path) -> None:
    with pytest.raises(SourceInvalidError, match="goes alone"):
        walk([f"{tree}/.", tree / "a.img"])


def test_files_are_described(tree: Path) -> None:
    (tree / "a.img").chmod(0o6754)
    os.utime(tree / "a.img", ns=(5, 1_700_000_000_123_456_789))
    (entry,), _ = walk([tree / "a.img"])
    assert (entry.path, entry.kind, entry.size) == ("a.img", "file", 100)
    assert entry.mode == 0o754, "nothing that would run as somebody else"
    assert entry.mtime_ns == 1_700_000_000_123_456_789
    assert not entry.sparse
    assert len(entry.identity) == 32


def test_sparse_files_are_told_from_full_ones(tree: Path) -> None:
    os.truncate(tree / "a.img", 10 << 20)
    (entry,), _ = walk([tree / "a.img"])
    assert entry.sparse


def test_a_directory_needs_leave(tree: Path) -> None:
    with pytest.raises(SourceInvalidError, match="is a directory") as caught:
        Sources([str(tree)], recursive=False)
    assert "--recursive" in caught.value.remedy


def test_what_is_not_there_says_so(tree: Path) -> None:
    with pytest.raises(SourceReadError, match="No such file"):
        walk([tree / "gone"])


def test_two_paths_cannot_arrive_under_one_name(tree: Path) -> None:
    (tree / "B" / "a.img").write_bytes(b"")
    with pytest.raises(SourceInvalidError, match=r"another path would arrive as 'a.img'"):
        walk([tree / "a.img", tree / "B" / "a.img"])


@pytest.mark.parametrize("path", ["", "a\0b", "x/a\nb"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(SourceInvalidError):
        walk([path])


def make_special(root: Path) -> socket.socket:
    (root / "link").symlink_to("a.img")
    (root / "dirlink").symlink_to("b")
    os.mkfifo(root / "fifo")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(root / "socket"))
    return sock


def test_special_files_in_a_directory_are_skipped_and_named(tree: Path) -> None:
    with make_special(tree):
        entries, skipped = walk([tree])
    assert names(entries) == ALL
    assert skipped == {
        "vm/link": "it is a symbolic link",
        "vm/dirlink": "it is a symbolic link",
        "vm/fifo": "it is a pipe",
        "vm/socket": "it is a socket",
    }


def test_special_files_that_are_named_are_refused(tree: Path) -> None:
    with make_special(tree):
        for path, kind in ((tree / "fifo", "a pipe"), (Path("/dev/null"), "a device")):
            with pytest.raises(SourceInvalidError, match=kind):
                walk([path])


def test_a_symbolic_link_that_is_named_is_followed(tree: Path) -> None:
    with make_special(tree):
        (entry,), _ = walk([tree / "link"])
        assert (entry.path, entry.kind, entry.size) == ("link", "file", 100)
        assert names(walk([tree / "dirlink"])[0]) == [
            "dirlink/",
            "dirlink/deeper/",
            "dirlink/deeper/y",
            "dirlink/z",
        ]


def test_names_the_other_side_would_refuse_are_skipped(tree: Path) -> None:
    directory = os.fsencode(tree)
    for name in (b"new\nline", b"\xff\xfe", b".x.01234567.novacron-part"):
        with open(directory + b"/" + name, "wb"):
            pass
    entries, skipped = walk([tree])
    assert names(entries) == ALL
    assert len(skipped) == 3
    for path in skipped:
        path.encode()
        assert path.isprintable()


def test_what_cannot_be_read_is_skipped_and_the_list_is_bounded(tree: Path) -> None:
    for number in range(MAX_SKIPPED + 5):
        (tree / f"link{number}").symlink_to("a.img")
    sources = Sources([str(tree)], recursive=True)
    assert names(list(sources.entries())) == ALL
    assert len(sources.skipped) == MAX_SKIPPED
    assert sources.skipped_total == MAX_SKIPPED + 5
    sources.close()


def test_a_very_deep_directory_is_cut_off_and_said(tmp_path: Path) -> None:
    path = tmp_path / "top"
    path.mkdir()
    deep = path
    for _ in range(120):
        deep = deep / "d"
        deep.mkdir()
    entries, skipped = walk([path])
    assert len(entries) == 100
    (why,) = skipped.values()
    assert "deep" in why


class TestOpening:
    """A walked entry, opened later."""

    @pytest.fixture
    def sources(self, tree: Path) -> Iterator[Sources]:
        sources = Sources([str(tree)], recursive=True)
        yield sources
        sources.close()

    @pytest.fixture
    def entries(self, sources: Sources) -> dict[str, Entry]:
        return {entry.path: entry for entry in sources.entries()}

    def test_it_is_what_was_walked(self, sources: Sources, entries: dict[str, Entry]) -> None:
        with sources.open(entries["vm/b/deeper/y"]) as file:
            assert os.pread(file.descriptor, 10, 0) == b"yy"
            assert not os.get_inheritable(file.descriptor)
            file.check_unchanged()

    def test_a_change_before_is_noticed(
        self, sources: Sources, entries: dict[str, Entry], tree: Path
    ) -> None:
        (tree / "a.img").write_bytes(b"b" * 100)
        with pytest.raises(SourceChangedError, match=r"a\.img"):
            sources.open(entries["vm/a.img"])

    def test_a_change_meanwhile_is_noticed(
        self, sources: Sources, entries: dict[str, Entry], tree: Path
    ) -> None:
        with sources.open(entries["vm/a.img"]) as file:
            with (tree / "a.img").open("ab") as other:
                other.write(b"more")
            with pytest.raises(SourceChangedError):
                file.check_unchanged()

    def test_another_file_of_the_same_look_is_noticed(
        self, sources: Sources, entries: dict[str, Entry], tree: Path
    ) -> None:
        before = (tree / "a.img").stat()
        (tree / "new").write_bytes(b"b" * 100)
        os.utime(tree / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(tree / "new", tree / "a.img")
        with pytest.raises(SourceChangedError):
            sources.open(entries["vm/a.img"])

    def test_what_is_gone_has_changed(
        self, sources: Sources, entries: dict[str, Entry], tree: Path
    ) -> None:
        (tree / "a.img").unlink()
        with pytest.raises(SourceChangedError):
            sources.open(entries["vm/a.img"])

    def test_nothing_that_took_its_place_is_opened(
        self, sources: Sources, entries: dict[str, Entry], tree: Path
    ) -> None:
        (tree / "a.img").rename(tree / "aside")
        for make in (
            lambda: (tree / "a.img").symlink_to("aside"),
            lambda: os.mkfifo(tree / "a.img"),
            lambda: (tree / "a.img").mkdir(),
        ):
            make()
            with pytest.raises(SourceChangedError):
                sources.open(entries["vm/a.img"])
            if (tree / "a.img").is_dir() and not (tree / "a.img").is_symlink():
                (tree / "a.img").rmdir()
            else:
                (tree / "a.img").unlink()

    def test_a_directory_on_the_way_that_became_a_link_is_not_followed(
        self, sources: Sources, entries: dict[str, Entry], tree: Path
    ) -> None:
        (tree / "b").rename(tree / "c")
        (tree / "b").symlink_to("c")
        with pytest.raises(SourceChangedError):
            sources.open(entries["vm/b/z"])


class TestForAnotherNode:
    """Confined to the configured directories."""

    def test_what_is_inside_is_sent(self, tree: Path) -> None:
        confinement = Confinement([tree.parent])
        assert names(walk(["vm"], confinement=confinement)[0]) == ALL
        assert names(walk([tree / "b"], confinement=confinement)[0])[0] == "b/"
        entries, _ = walk(["."], confinement=confinement)
        assert names(entries) == ALL
        entries, _ = walk([tree.parent], confinement=confinement)
        assert names(entries)[1] == f"{tree.parent.name}/vm/"

    def test_it_can_be_opened(self, tree: Path) -> None:
        sources = Sources(["vm/b/z"], recursive=False, confinement=Confinement([tree.parent]))
        (entry,) = sources.entries()
        with sources.open(entry) as file:
            assert os.pread(file.descriptor, 5, 0) == b"z"
        sources.close()

    @pytest.mark.parametrize("path", ["/etc/passwd", "../vm/a.img", "b/../../x"])
    def test_what_is_outside_is_not(self, tree: Path, path: str) -> None:
        with pytest.raises(PathDeniedError):
            walk([path], confinement=Confinement([tree / "b"]))

    def test_no_link_is_followed(self, tree: Path) -> None:
        confinement = Confinement([tree / "b"])
        (tree / "b" / "out").symlink_to(tree / "a.img")
        (tree / "b" / "dir").symlink_to(tree)
        with pytest.raises(SourceInvalidError, match="symbolic link"):
            walk(["out"], confinement=confinement)
        with pytest.raises(PathDeniedError, match="symbolic link"):
            walk(["dir/a.img"], confinement=confinement)

    def test_what_becomes_a_link_after_the_walk_is_not_opened(self, tree: Path) -> None:
        sources = Sources(["z"], recursive=False, confinement=Confinement([tree / "b"]))
        (entry,) = sources.entries()
        (tree / "b" / "z").unlink()
        (tree / "b" / "z").symlink_to(tree / "a.img")
        with pytest.raises(SourceChangedError):
            sources.open(entry)
        sources.close()

    def test_what_is_not_there_says_so(self, tree: Path) -> None:
        with pytest.raises(SourceReadError, match="No such file"):
            walk(["b/gone/x"], confinement=Confinement([tree]))

"""What the encoding bench moves is the same for the same seed, and is what its name says."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import disk_image, guest_memory, hde_data
from bench.harness import BenchError
from bench.hde_data import MIB, PAGE, PHASES, WORD, DataMaker, library_blocks, write_dirty
from bench.log_text import log_text

SIZE = 4 * MIB


@pytest.fixture(autouse=True)
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One library of 3 MiB instead of the machine's."""
    folder = tmp_path / "lib"
    folder.mkdir()
    library = folder / "libone.so.1"
    library.write_bytes(bytes(range(256)) * (3 * MIB // 256))
    (folder / "readme").write_text("no library")
    monkeypatch.setattr(hde_data, "LIBRARIES", (folder,))
    return library


def made(folder: Path, name: str, seed: int = 1, size: int = SIZE) -> bytes:
    folder.mkdir(exist_ok=True)
    maker = DataMaker(folder, seed)
    data = maker.make(name, size)
    content = data.source.read_bytes()
    assert (data.name, data.size) == (name, len(content)) == (name, size)
    maker.discard(data)
    assert not data.source.exists()
    return content


@pytest.mark.parametrize("name", ["logs", "random", "sparse", "phases"])
def test_the_same_seed_is_the_same_data_and_another_one_is_not(name: str, tmp_path: Path) -> None:
    first, again = made(tmp_path / "a", name), made(tmp_path / "b", name)
    assert first == again
    assert made(tmp_path / "c", name, seed=2) != first


def test_logs_are_lines_of_text_with_times_that_only_go_forward() -> None:
    text = b"".join(itertools.islice(log_text(1), 2))
    lines = text.decode("ascii").split("\n")[:-1]
    assert len(lines) > 5000
    assert len(set(lines)) > 0.99 * len(lines)
    assert {line[0] for line in lines} >= {"1", "{", "J"}
    stamps = [line[7:26] for line in lines if line.startswith('{"ts":"')]
    assert stamps == sorted(stamps)
    assert max(map(len, lines)) < 400


def test_each_block_of_the_libraries_comes_once_before_the_first_comes_again(
    small_library: Path,
) -> None:
    count = small_library.stat().st_size // (256 * 1024)
    blocks = list(itertools.islice(library_blocks(1), 2 * count))
    assert blocks[:count] == blocks[count:]
    assert b"no library" not in b"".join(blocks)
    small_library.unlink()
    with pytest.raises(BenchError, match="no shared libraries"):
        next(library_blocks(1))


def test_zeros_are_written_and_holes_are_not(tmp_path: Path) -> None:
    maker = DataMaker(tmp_path)
    zeros, sparse = maker.make("zeros", SIZE), maker.make("sparse", 2 * SIZE)
    assert zeros.source.read_bytes() == bytes(SIZE)
    assert zeros.source.stat().st_blocks * 512 >= SIZE
    assert not zeros.sparse
    assert sparse.sparse
    content = sparse.source.read_bytes()
    full = [at for at in range(0, 2 * SIZE, MIB) if any(content[at : at + MIB])]
    assert [at // SIZE for at in full] == [0, 1]


def test_phases_are_equal_parts_in_order(tmp_path: Path) -> None:
    content = made(tmp_path / "p", "phases", size=2 * SIZE)
    part = 2 * SIZE // len(PHASES)
    for number, name in enumerate(PHASES):
        whole = b"".join(itertools.islice(hde_data.BLOCKS[name](1), 2 * part // (256 * 1024)))
        assert content[number * part : (number + 1) * part] == whole[:part], name


@pytest.mark.parametrize("words", [1, 8, 64, 256])
def test_in_each_page_so_many_words_are_another_ones(words: int, tmp_path: Path) -> None:
    base, dirty, again = tmp_path / "base", tmp_path / "dirty", tmp_path / "again"
    base.write_bytes(next(hde_data.random_blocks(1)) + bytes(MIB + PAGE))
    write_dirty(dirty, base, words, 1)
    before, after = base.read_bytes(), dirty.read_bytes()
    assert len(before) == len(after)
    for page in range(0, len(before), PAGE):
        places = range(page, page + PAGE, WORD)
        assert sum(before[at : at + WORD] != after[at : at + WORD] for at in places) == words
    write_dirty(again, base, words, 1)
    assert again.read_bytes() == after
    write_dirty(again, base, words, 2)
    assert again.read_bytes() != after


@pytest.mark.skipif(shutil.which("debugfs") is None, reason="needs Debian's e2fsprogs")
def test_the_second_version_of_an_image_is_a_sound_file_system_and_mostly_the_first(
    tmp_path: Path,
) -> None:
    blocks: Iterator[bytes] = hde_data.random_blocks(1)
    first, second = tmp_path / "first", tmp_path / "second"
    note = disk_image.write(first, second, 16 * MIB, blocks, 1)
    assert "files changed" in note
    before, after = first.read_bytes(), second.read_bytes()
    assert len(before) == len(after) == 16 * MIB
    pages = range(0, len(before), PAGE)
    changed = sum(before[at : at + PAGE] != after[at : at + PAGE] for at in pages)
    assert 0.005 < changed / len(pages) < 0.3
    for image in (first, second):
        subprocess.run(["e2fsck", "-fn", str(image)], check=True, capture_output=True)


def test_a_guest_that_cannot_be_booted_is_told_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "kernel"
    with pytest.raises(BenchError, match="cannot be read"):
        guest_memory.kernel_image(kernel)
    kernel.write_bytes(b"no kernel")
    assert guest_memory.kernel_image(kernel) == kernel
    monkeypatch.setattr(guest_memory, "KERNELS", (tmp_path / "none",))
    with pytest.raises(BenchError, match=r"make lab, or --kernel FILE"):
        guest_memory.kernel_image()
    if shutil.which("qemu-system-x86_64") and shutil.which("busybox"):
        maker = DataMaker(tmp_path, kernel=kernel)
        with pytest.raises(BenchError, match="did not come up"):
            maker.make("guest-memory", SIZE)
        assert not list(tmp_path.glob("guest-memory-*"))


def test_a_file_system_for_the_guest_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    entry = guest_memory._entry(1, "data/library0", 0o100644, b"12345")
    assert entry.startswith(b"070701")
    assert len(entry) % 4 == 0
    assert entry.endswith(b"12345\0\0\0")
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"#!")
    archive = guest_memory._file_system(busybox, hde_data.random_blocks(1))
    if shutil.which("cpio"):
        listed = subprocess.run(["cpio", "-t"], input=archive, capture_output=True, check=True)
        assert b"data/library0" in listed.stdout.split(b"\n")
        assert b"bin/busybox" in listed.stdout.split(b"\n")
    assert archive.index(b"data/library0\0") < archive.index(b"TRAILER!!!\0")


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    maker = DataMaker(tmp_path)
    with pytest.raises(BenchError, match="there is no data set 'videos'"):
        maker.make("videos", SIZE)
    for size in (MIB, SIZE + 1):
        with pytest.raises(BenchError, match="whole MiB, at least 4"):
            maker.make("random", size)

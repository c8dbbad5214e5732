"""What the documents promise exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, files

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?s:```.*?```)|`[^`\n]+`|^    [^\n]*$", re.MULTILINE)
FRAGMENT = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\.(?:feature|fix|perf|breaking)\.md")
ADR = re.compile(r"(\d{4})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
ADR_SECTIONS = ["Context", "Decision"]

DOCUMENTS = [path for path in files() if path.suffix == ".md"]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, built as repository browsers build them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*#*$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        name, number = base, 0
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.add(name)
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Links of *page* that lead to no file, or to no heading in it."""
    broken = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = ROOT / page.parent / name
        if name and not file.exists():
            broken.append(target)
            continue
        headings = text if not name else file.read_text() if file.suffix == ".md" else None
        if anchor and headings is not None and anchor not in anchors(headings):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not broken_links(page, (ROOT / page).read_text())


def test_a_broken_link_is_noticed() -> None:
    text = (
        "# Top\n[a](missing.md) [b](#top) [c](#bottom) [d](https://example.org)\n```\n[e](x)\n```\n"
    )
    assert broken_links(Path("README.md"), text) == ["missing.md", "#bottom"]


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [Path("README.md"), Path("docs/README.md")]
    while waiting:
        page = waiting.pop()
        if page in reached or not (ROOT / page).is_file():
            continue
        reached.add(page)
        for target in LINK.findall((ROOT / page).read_text()):
            name = target.partition("#")[0]
            if name.endswith(".md") and ":" not in name:
                waiting.append((ROOT / page.parent / name).resolve().relative_to(ROOT))
            elif name.endswith("/") and (ROOT / page.parent / name).is_dir():
                folder = (ROOT / page.parent / name).resolve().relative_to(ROOT)
                waiting += [other for other in DOCUMENTS if other.parent == folder]
    assert not {page for page in DOCUMENTS if page.parts[0] == "docs"} - reached


def test_change_fragments_are_named_so_that_a_release_can_collect_them() -> None:
    wrong = [
        path.name
        for path in files()
        if path.parent == Path("docs/changes") and path.name != "README.md"
        if not FRAGMENT.fullmatch(path.name)
    ]
    assert not wrong


def test_decisions_are_numbered_once_and_say_why_and_what() -> None:
    pages = [path for path in files() if path.parent == Path("docs/adr")]
    pages = [path for path in pages if path.name != "README.md"]
    assert pages
    numbers = []
    for page in pages:
        match = ADR.fullmatch(page.name)
        assert match, f"{page.name} is not NNNN-title.md"
        numbers.append(match[1])
        headings = re.findall(r"^## (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        missing = [name for name in ADR_SECTIONS if name not in headings]
        assert not missing, f"{page} lacks {missing}"
    assert len(numbers) == len(set(numbers))


def test_every_make_target_a_document_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        (str(page), target)
        for page in DOCUMENTS
        for code in CODE.findall((ROOT / page).read_text())
        for target in re.findall(r"(?<!install )\bmake ([a-z][a-z-]*)", code)
    }
    assert named
    assert not [(page, target) for page, target in named if target not in targets]


def test_every_make_target_is_explained_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert explained == set(declared[1].split())

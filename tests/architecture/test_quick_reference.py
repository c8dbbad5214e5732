"""The quick reference says what the registered components and the parser say."""

from __future__ import annotations

import re

import pytest

from novacron.component import Criticality, Phase
from novacron.node import component_classes
from tests.architecture.tree import ROOT

PAGE = (ROOT / "docs/reference/quick-reference.md").read_text()


def row(section: str, first: str) -> list[str]:
    """The cells after *first* of the row it begins, in the table below heading *section*."""
    table = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    [found] = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


@pytest.mark.parametrize("phase", list(Phase))
def test_each_phase_lists_its_components(phase: Phase) -> None:
    listed = re.findall(r"[a-z_]+", row("Phases", f"`{phase}`")[0])
    classes = [one for one in component_classes() if one.phase == phase]
    assert {one.name for one in classes} == set(listed) - {"then", "in", "this", "order"}


@pytest.mark.parametrize("criticality", list(Criticality))
def test_each_class_lists_its_components(criticality: Criticality) -> None:
    listed = row("Classes", criticality.value)[0].split(", ")
    classes = [one for one in component_classes() if one.criticality == criticality]
    assert {one.name for one in classes} == set(listed)


def test_every_option_of_the_page_exists() -> None:
    from novacron.boot_command.arguments import parser

    known = {option for action in parser()._actions for option in action.option_strings}
    options = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert options
    assert not options - known - {"--help"}


def test_every_command_of_the_page_exists() -> None:
    from novacron.cli import COMMANDS

    named = set(re.findall(r"`novacron ([a-z]+)", PAGE))
    assert named
    assert not named - set(COMMANDS)

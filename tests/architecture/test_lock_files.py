"""The lock files say what pyproject.toml asks for, and can be installed from anywhere."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.architecture.tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def locked(name: str) -> dict[str, tuple[Version, str]]:
    """Canonical name to version and the rest of its entry."""
    return {
        canonicalize_name(package): (Version(version), rest)
        for package, version, rest in ENTRY.findall((ROOT / name).read_text())
    }


def wanted(*extras: str) -> list[Requirement]:
    """The project's own requirements, with those of *extras* and the extras these name."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:
                found += wanted(*requirement.extras)
            else:
                found.append(requirement)
    return found


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", ("build",)), ("requirements-dev.lock", ("dev",))],
)
def test_the_lock_meets_every_requirement_with_a_hash(lock: str, extras: tuple[str, ...]) -> None:
    pins = locked(lock)
    for requirement in wanted(*extras):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in {lock}: make lock"
        version, rest = pins[name]
        assert requirement.specifier.contains(version), f"{name} {version}: make lock"
        assert "--hash=sha256:" in rest
    assert all("--hash=sha256:" in rest for _, rest in pins.values())


def test_a_node_is_tested_with_exactly_the_versions_it_runs_on() -> None:
    develop = locked("requirements-dev.lock")
    differing = {
        name: (str(version), str(develop[name][0]) if name in develop else None)
        for name, (version, _) in locked("requirements.lock").items()
        if name not in develop or develop[name][0] != version
    }
    assert not differing


def test_every_requirement_has_a_lower_bound() -> None:
    stubs = re.compile(r"types-")
    without = [
        str(requirement)
        for requirement in wanted("dev")
        if not stubs.match(requirement.name)
        and not any(bound.operator in {">=", "~=", "=="} for bound in requirement.specifier)
    ]
    assert not without


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_names_no_address(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()
    assert "--index-url" not in (ROOT / lock).read_text()

"""From files, variables and flags to validated settings, or to everything that is wrong at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.config.loaded import Inputs, LoadedConfiguration, digest_of
from novacron.config.provenance import Override, Source
from novacron.config.schema import Settings
from novacron.data_directory import DataDirectory

if TYPE_CHECKING:
    from novacron.config.errors import Problem
    from novacron.config.layers import Layer

_defaults: list[LoadedConfiguration] = []


def load(
    files: Sequence[str | os.PathLike[str]] = (),
    overrides: Mapping[str, Any] | Iterable[Override] = (),
    environ: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> LoadedConfiguration:
    """Put a configuration together and validate it.

    Precedence, highest first: *overrides* (command line), *environ* (``os.environ`` when None),
    *files* (a later one wins over an earlier one), the profile of the network mode, defaults. The
    mode is ``dwcp.mode``; *profile* is what ``auto`` means, when the caller has measured it.

    Raises:
      ConfigInvalidError: names every problem of every layer.
      ConfigUnreadableError: a file is missing or cannot be read.
    """
    if environ is None:
        environ = os.environ
    overrides = dict(overrides) if isinstance(overrides, Mapping) else tuple(overrides)
    relevant = {name: text for name, text in environ.items() if name.startswith("NOVACRON_")}
    if not files and not overrides and not relevant and profile is None:
        # The common boot: nothing to read, nothing to validate (a test validates the defaults).
        if not _defaults:
            settings = Settings.model_construct()
            _defaults.append(LoadedConfiguration(settings, digest_of(settings)))
        return _defaults[0]
    return _load(files, overrides, relevant, profile)


def _load(
    files: Sequence[str | os.PathLike[str]],
    overrides: Mapping[str, Any] | tuple[Override, ...],
    environ: Mapping[str, str],
    profile: str | None,
) -> LoadedConfiguration:
    from novacron.config import layers
    from novacron.config.profiles import PROFILES
    from novacron.config.validation import referenced_variables, validate_layer

    problems: list[Problem] = []
    paths = tuple(Path(file).absolute() for file in files)
    stack: list[Layer] = []
    digests: list[str] = []
    for path in paths:
        layer, digest = _file_layer(path, problems)
        stack.append(layer)
        digests.append(digest)
    variables, unknown = layers.from_environment(environ, problems)
    stack += [variables, layers.from_overrides(overrides, problems)]
    for layer in stack:
        problems += validate_layer(layer)

    merged = layers.merge(stack)
    named = referenced_variables(merged)
    problems += [problem for problem in unknown if problem.source.name not in named]

    mode = merged.get(("dwcp", "mode"))
    chosen = mode.value if mode is not None else "auto"
    if chosen == "auto" and profile is not None:
        chosen = profile
    values = PROFILES.get(chosen) if isinstance(chosen, str) else None
    if values:
        below = layers.from_flat(values, Source("profile", chosen), problems)
        merged = layers.merge([below, merged])
    return _finish(merged, problems, paths, tuple(digests), Inputs(overrides, environ, profile))


def restore(
    copy: Mapping[str, Any],
    overrides: Mapping[str, Any] | Iterable[Override] = (),
    name: str = "last known good configuration",
) -> LoadedConfiguration:
    """A configuration from a copy that :meth:`LoadedConfiguration.as_dict` made earlier.

    Files, variables and profiles play no part: the copy holds every value; *overrides* still win.

    Raises:
      ConfigInvalidError: the copy is damaged, or of a version with other keys.
    """
    from novacron.config import layers
    from novacron.config.documents import Node
    from novacron.config.validation import validate_layer

    def tree(value: Any) -> Node:
        if isinstance(value, Mapping):
            return Node({str(key): tree(item) for key, item in value.items()}, 0, 0)
        if isinstance(value, list | tuple):
            return Node([tree(item) for item in value], 0, 0)
        return Node(value, 0, 0)

    problems: list[Problem] = []
    stack = [
        layers.from_tree(tree(copy), Source("restored", name), problems),
        layers.from_overrides(overrides, problems),
    ]
    for layer in stack:
        problems += validate_layer(layer)
    return _finish(layers.merge(stack), problems, (), (), None)


def _finish(
    merged: Layer,
    problems: list[Problem],
    paths: tuple[Path, ...],
    digests: tuple[str, ...],
    inputs: Inputs | None,
) -> LoadedConfiguration:
    from novacron.config.rules import broken_rules
    from novacron.config.validation import settings_from

    settings = None
    if not problems:
        settings = settings_from(merged)
        problems += broken_rules(settings, merged)
    if problems or settings is None:
        from novacron.config.errors import ConfigInvalidError

        raise ConfigInvalidError(problems)
    return LoadedConfiguration(settings, digest_of(settings), paths, digests, merged, inputs)


def _file_layer(path: Path, problems: list[Problem]) -> tuple[Layer, str]:
    from novacron.config import layers
    from novacron.config.files import read_document

    document = read_document(path, problems)
    source = Source("file", str(path))
    if document.root is None:
        return {}, document.digest
    return layers.from_tree(document.root, source, problems), document.digest


def data_directory_for(settings: Settings) -> DataDirectory:
    """The data directory that ``system.data_dir`` names, or the one for this user."""
    # No shell expands the ~ of a file or of `--set system.data_dir=~/node`; a directory of that
    # name below the working directory is nothing anybody wants.
    root = Path(settings.system.data_dir or default_data_dir()).expanduser()
    return DataDirectory(root.absolute())


def default_data_dir() -> str:
    """Where a node keeps its things when nobody said: by the FHS for root, by XDG for others."""
    if os.geteuid() == 0:
        return "/var/lib/novacron"
    base = os.environ.get("XDG_DATA_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "novacron")

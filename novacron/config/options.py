"""The command line options that every entry point takes to find its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from novacron.config.loaded import LoadedConfiguration
from novacron.config.loading import load
from novacron.config.provenance import Override

if TYPE_CHECKING:
    import argparse

_SHORTHANDS = {
    "data_dir": ("--data-dir", "system.data_dir"),
    "log_level": ("--log-level", "system.log_level"),
    "log_format": ("--log-format", "system.log_format"),
}


def add_configuration_options(parser: argparse.ArgumentParser) -> None:
    """Give *parser* ``--config``, ``--set`` and the shorthands for the most common keys."""
    group = parser.add_argument_group(
        "configuration",
        "Precedence: these options, NOVACRON_ variables, files, the profile of dwcp.mode, defaults.",
    )
    group.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML or JSON file; may be given again, later files win",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        type=_setting,
        metavar="KEY=VALUE",
        help="set one key, e.g. --set api.port=0; may be given again. Secrets do not belong on a "
        "command line: set a reference",
    )
    group.add_argument("--data-dir", metavar="DIR", help="short for --set system.data_dir=DIR")
    group.add_argument(
        "--log-level", metavar="LEVEL", help="short for --set system.log_level=LEVEL"
    )
    group.add_argument(
        "--log-format", metavar="FORMAT", help="short for --set system.log_format=FORMAT"
    )


def _setting(text: str) -> Override:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        import argparse

        raise argparse.ArgumentTypeError("KEY=VALUE is expected, for example api.port=0")
    # Not the value: it may be long, or a secret by mistake.
    return Override(key.strip(), value, f"--set {key.strip()}")


def overrides_from(args: argparse.Namespace) -> tuple[Override, ...]:
    """What the options in *args* set; a shorthand wins over ``--set`` of the same key."""
    found: list[Override] = list(args.settings)
    for attribute, (flag, key) in _SHORTHANDS.items():
        value: Any = getattr(args, attribute, None)
        if value is not None:
            found.append(Override(key, value, flag))
    return tuple(found)


def load_from(
    args: argparse.Namespace, environ: Mapping[str, str] | None = None
) -> LoadedConfiguration:
    """Load what *args*, parsed with :func:`add_configuration_options`, ask for.

    Raises:
      ConfigInvalidError, ConfigUnreadableError: as :func:`novacron.config.load`.
    """
    return load(tuple(args.config), overrides_from(args), environ)

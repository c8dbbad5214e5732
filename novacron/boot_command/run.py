"""Booting for real: which configuration, and what to say when there is none."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from novacron.boot import exits
from novacron.boot.process_start import ProcessStart, span
from novacron.boot.sealed import DamagedFileError, read_sealed
from novacron.boot_command.failures import explain
from novacron.component import JsonObject
from novacron.config import LoadedConfiguration, data_directory_for
from novacron.config.loading import default_data_dir, restore
from novacron.config.options import load_from, overrides_from
from novacron.data_directory import DataDirectory
from novacron.errors import ConfigError, NotFoundError


class NoKnownGoodError(ConfigError, NotFoundError):
    """``--last-known-good`` was asked for, and no boot has become READY yet."""

    code = "config.no_known_good"


def run(args: argparse.Namespace, start: ProcessStart, interpreter_seconds: float) -> int:
    """Boot and serve. Returns the exit status."""
    prelude = [
        span("interpreter", 0.0, interpreter_seconds),
        span("imports", interpreter_seconds, start.elapsed()),
    ]
    try:
        loaded = known_good(args, os.environ) if args.last_known_good else load_from(args)
        data = data_directory_for(loaded.settings)
        if loaded.settings.boot.criticality or loaded.settings.boot.start_timeout:
            from novacron.node import check_component_names

            check_component_names(loaded)
    except ConfigError as exc:
        sys.stderr.write(explain(exc))
        if not args.last_known_good and _known_good_path(args, os.environ).exists():
            sys.stderr.write(
                "The last configuration that worked can be booted with --last-known-good.\n"
            )
        if args.report:
            from novacron.boot_command.early_report import write_early_report

            write_early_report(Path(args.report), start, exc)
        return exits.CONFIG
    prelude.append(span("configuration", prelude[-1]["end"], start.elapsed()))
    from novacron.boot_command.session import Session

    prelude.append(span("components", prelude[-1]["end"], start.elapsed()))
    return Session(args, loaded, data, start, prelude).run()


def known_good(args: argparse.Namespace, environ: Mapping[str, str]) -> LoadedConfiguration:
    """The configuration of the last boot that became READY, under this command line's options.

    Raises:
      NoKnownGoodError: there is none, or it cannot be believed.
      ConfigError: this version has no use for it any more.
    """
    path = _known_good_path(args, environ)
    why = "no boot with this data directory has become READY yet"
    body: JsonObject | None = None
    try:
        body = read_sealed(path)
    except DamagedFileError as exc:
        why = f"the file is damaged: {exc}"
    except OSError as exc:
        why = exc.strerror or str(exc)
    if body is None:
        raise NoKnownGoodError(
            f"there is no last known good configuration in {path}",
            why=why,
            remedy="correct the present configuration, or name the right --data-dir",
            key="system.data_dir",
        )
    return restore(body["configuration"], overrides_from(args), str(path))


def _known_good_path(args: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """Where it lies, found without a valid configuration: that is what it is there for."""
    root: str | None = None
    for override in overrides_from(args):
        if override.key == "system.data_dir":
            root = str(override.value)
    root = root or environ.get("NOVACRON_SYSTEM__DATA_DIR") or environ.get("NOVACRON_DATA_DIR")
    if root is None:
        try:
            root = str(data_directory_for(load_from(args, environ).settings).root)
        except ConfigError:
            root = default_data_dir()
    return DataDirectory(Path(root)).boot / "last-known-good.json"

"""The modes that boot nothing: ``--check``, ``--plan`` and ``--analyze``."""

from __future__ import annotations

import argparse
import json
import sys

from novacron.boot import exits
from novacron.boot_command.failures import explain
from novacron.component import JsonObject
from novacron.config import LoadedConfiguration, data_directory_for
from novacron.config.options import load_from
from novacron.data_directory import DataDirectory
from novacron.errors import BootError, ConfigError


def check(args: argparse.Namespace) -> int:
    """Validate configuration and graph; nothing is written, bound or started."""
    from novacron.node import check_component_names, resolve

    try:
        loaded = load_from(args)
        check_component_names(loaded)
    except ConfigError as exc:
        if args.json:
            print(json.dumps({"valid": False, "problems": _problems(exc)}, indent=2))
        else:
            sys.stderr.write(explain(exc))
        return exits.CONFIG
    data = data_directory_for(loaded.settings)
    try:
        definitions = resolve(loaded, data)
    except BootError as exc:
        sys.stderr.write(explain(exc))
        return exits.CONFIG
    if args.json:
        print(
            json.dumps(
                {
                    "valid": True,
                    "digest": loaded.digest,
                    "components": [d.name for d in definitions],
                }
            )
        )
    else:
        files = ", ".join(str(path) for path in loaded.files) or "no file, defaults"
        print(f"The configuration is valid ({files}).")
        print(f"{len(definitions)} components, data directory {data.root}.")
    return 0


def _problems(error: ConfigError) -> list[JsonObject]:
    return [
        {
            "key": problem.key,
            "source": str(problem.source),
            "message": problem.message,
            "accepted": problem.accepted,
            "nearest": problem.nearest,
        }
        for problem in getattr(error, "problems", ())
    ] or [{"key": error.key, "source": "", "message": str(error), "accepted": "", "nearest": ""}]


def show_plan(args: argparse.Namespace) -> int:
    from novacron.boot.plan import as_text, plan
    from novacron.node import check_component_names, engine_options, resolve

    try:
        loaded = load_from(args)
        check_component_names(loaded)
        data = data_directory_for(loaded.settings)
        definitions = resolve(loaded, data)
    except (ConfigError, BootError) as exc:
        sys.stderr.write(explain(exc))
        return exits.CONFIG
    value = plan(definitions, engine_options(loaded.settings), _durations(data, loaded))
    print(
        json.dumps(value, indent=2) if args.json else as_text(value), end="\n" if args.json else ""
    )
    return 0


def _durations(data: DataDirectory, loaded: LoadedConfiguration) -> dict[str, float]:
    """Seconds each component took in the newest boot that is readable; empty without one."""
    from novacron.boot.report_store import ReportStore

    for path in ReportStore(data, loaded.settings.boot.keep_reports).paths():
        try:
            body = json.loads(path.read_bytes())
            return {
                c["name"]: c["ready"] - c["started"]
                for c in body["components"]
                if c["ready"] is not None and c["started"] is not None
            }
        except (OSError, ValueError, KeyError, TypeError):
            # --plan touches nothing: a damaged report is for --analyze to set aside.
            continue
    return {}


def analyze(args: argparse.Namespace) -> int:
    from novacron.boot import analysis
    from novacron.boot.report_store import ReportStore

    try:
        loaded = load_from(args)
    except ConfigError as exc:
        sys.stderr.write(explain(exc))
        return exits.CONFIG
    store = ReportStore(data_directory_for(loaded.settings), loaded.settings.boot.keep_reports)
    try:
        return analysis.run(args.analyze, store, args.boot or (), args.output, args.json)
    except BootError as exc:
        sys.stderr.write(explain(exc))
        return exits.FAILED

"""``novacron config``: what the configuration is, where from, and whether it is right."""

from __future__ import annotations

import argparse

from novacron.cli.manual import Formatter, manual
from novacron.cli.tables import as_json, table
from novacron.config.options import add_configuration_options, load_from

_FILES = {
    "configs/default.yaml": "every key at its default, commented",
    "configs/datacenter.yaml, internet.yaml, hybrid.yaml": "a start for each network mode",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``config`` and its commands."""
    parser = subparsers.add_parser(
        "config",
        help="explain, check and print configurations",
        description="Explain, check and print configurations. None of these starts or asks a node.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                ("novacron config check -c node.yaml", "is this file right? All mistakes at once"),
                ("novacron config explain network.seeds", "value, source, meaning, variable"),
                ("novacron config show --changed -c node.yaml", "what differs from the defaults"),
            ],
            files=_FILES,
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str, description: str, example: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=help,
            description=description,
            formatter_class=Formatter,
            epilog=manual(examples=[(example, help)], files=_FILES),
        )

    explained = action(
        "explain",
        "what a key is, what it is set to and who set it",
        "Show a key's value, its source (file and line, variable, flag, profile), default, meaning, "
        "what it accepts, and whether SIGHUP applies it.",
        "novacron config explain api.port",
    )
    explained.add_argument("key", metavar="KEY", help="dotted, e.g. boot.criticality.cache")
    explained.add_argument("--json", action="store_true", help="print one JSON object")
    add_configuration_options(explained)
    explained.set_defaults(run=explain)

    shown = action(
        "show",
        "every key, its value and its source",
        "Show the configuration that would run: every key, its value, and where it came from. "
        "References to secrets are shown, secrets never.",
        "novacron config show",
    )
    shown.add_argument("--changed", action="store_true", help="only what is not at its default")
    shown.add_argument("--json", action="store_true", help="print the values as one JSON object")
    add_configuration_options(shown)
    shown.set_defaults(run=show)

    checked = action(
        "check",
        "validate without touching anything",
        "Read files, variables and options, and say everything that is wrong with them.",
        "novacron config check --config node.yaml",
    )
    checked.add_argument("files", nargs="*", metavar="FILE", help="the same as --config FILE")
    add_configuration_options(checked)
    checked.set_defaults(run=check)

    action(
        "schema",
        "JSON Schema of the configuration file",
        "Print the JSON Schema (draft 2020-12) of a configuration file, for an editor.",
        "novacron config schema > novacron.schema.json",
    ).set_defaults(run=schema)
    action(
        "default",
        "a file with every key at its default",
        "Print a YAML file with every key at its default, commented.",
        "novacron config default > node.yaml",
    ).set_defaults(run=default)


def explain(args: argparse.Namespace) -> int:
    found = load_from(args).explain(args.key)
    if args.json:
        import dataclasses

        print(as_json(dataclasses.asdict(found)))
        return 0
    import json

    print(found.key)
    rows = {
        "meaning": found.meaning,
        "value": json.dumps(found.value, ensure_ascii=False),
        "source": found.source,
        "default": json.dumps(found.default, ensure_ascii=False),
        "accepts": found.accepted,
        "reload": "SIGHUP applies a change" if found.reloadable else "a change needs a restart",
        "variable": found.environment,
    }
    for label, text in rows.items():
        print(f"  {label + ':':<10}{text}")
    return 0


def show(args: argparse.Namespace) -> int:
    import json

    loaded = load_from(args)
    changed = [
        (key, loaded.explain(key))
        for key in loaded.keys()  # noqa: SIM118 - not a mapping
        if not args.changed or str(loaded.source(key)) != "default"
    ]
    if args.json:
        print(
            as_json(
                {key: found.value for key, found in changed} if args.changed else loaded.redacted()
            )
        )
        return 0
    rows = [
        [key, json.dumps(found.value, ensure_ascii=False), found.source] for key, found in changed
    ]
    print(table(("key", "value", "source"), rows))
    return 0


def check(args: argparse.Namespace) -> int:
    from novacron.node import check_component_names

    args.config = [*args.config, *args.files]
    loaded = load_from(args)
    check_component_names(loaded)
    files = len(loaded.files)
    count = "no file" if not files else "1 file" if files == 1 else f"{files} files"
    print(f"the configuration is valid ({count}; keys set: {len(loaded.entries)})")
    return 0


def schema(args: argparse.Namespace) -> int:
    from novacron.config.reference import json_schema

    print(as_json(json_schema()))
    return 0


def default(args: argparse.Namespace) -> int:
    from novacron.config.reference import default_yaml

    print(default_yaml(), end="")
    return 0

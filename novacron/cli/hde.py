"""``novacron hde``: what is encoded with, and training a dictionary for messages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.cli import block_index
from novacron.cli.manual import Formatter, manual
from novacron.cli.progress import size
from novacron.cli.stored import Subparsers, add_action
from novacron.cli.tables import as_json, cell, pairs, table

if TYPE_CHECKING:
    from novacron.dwcp.hde.training import Trained

FAILED = 1


def register(subparsers: Subparsers) -> None:
    """Add ``hde`` and its actions."""
    parser = subparsers.add_parser(
        "hde",
        help="what data and messages are encoded with",
        description="Look at what this host encodes with, train a dictionary for the messages that\n"
        "nodes send each other about transfers, and look at what receivers need not be sent again.",
        formatter_class=Formatter,
        epilog=manual(
            examples=[
                (
                    "novacron hde show",
                    "are lz4 and zstd there, which dictionaries, which settings?",
                ),
                (
                    "novacron hde train --from-traffic --output messages.zdict",
                    "a dictionary from what this node sent and received",
                ),
            ],
            files={"DATA_DIR/dwcp/messages/": "messages, while dwcp.hde.keep_messages is set"},
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    show = add_action(
        actions,
        "show",
        "show codecs, dictionaries and settings",
        "Show the codecs for data and the versions of their libraries, the dictionaries for messages,\n"
        "and dwcp.hde. Looks at this host; does not ask the node.",
        [("novacron hde show --json", "for scripts")],
        {"0": "everything is there", "1": "a codec or dictionary is missing; it says why"},
    )
    show.set_defaults(run=show_encoding)

    train = add_action(
        actions,
        "train",
        "make a dictionary for messages",
        "Make a dictionary from messages, and say what it gains on some that it was not made from.\n"
        "Copy the file to the nodes, and set dwcp.hde.dictionary to it: two nodes that have the same\n"
        "one use it, others go on with the one that comes with the package. It holds parts of the\n"
        "messages, so names of files too.",
        [
            (
                "novacron hde train --from-traffic --output messages.zdict",
                "from what the node kept while dwcp.hde.keep_messages was set",
            ),
            (
                "novacron hde train --samples one/ --size 16384 --output messages.zdict",
                "a larger one, from files of a message each",
            ),
        ],
        {"0": "it is written", "1": "there are too few messages, or they cannot be read"},
    )
    source = train.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--samples", metavar="DIR", type=Path, help="directory of files, each of them a message"
    )
    source.add_argument(
        "--from-traffic", action="store_true", help="the messages that this host's node kept"
    )
    train.add_argument(
        "--output", metavar="FILE", type=Path, required=True, help="where to write it"
    )
    train.add_argument(
        "--size",
        metavar="BYTES",
        type=int,
        help="of the dictionary at most, 1024 to 262144 (default: 8192)",
    )
    train.set_defaults(run=train_dictionary)
    block_index.register(actions)


def show_encoding(args: argparse.Namespace) -> int:
    from novacron.config.options import load_from
    from novacron.dwcp.hde.overview import overview

    found = overview(load_from(args).settings.dwcp.hde)
    codecs, messages = found["codecs"], found["messages"]
    whole = all(not one["why"] for one in codecs) and not messages["faults"]
    if args.json:
        print(as_json(found))
        return 0 if whole else FAILED
    rows = [
        [one["codec"], "no" if one["why"] else "yes", one["version"] or None, one["why"] or None]
        for one in codecs
    ]
    print(table(("codec of data", "usable", "library", "why not"), rows))
    print()
    columns = ("id", "origin", "bytes", "sha256", "file")
    dictionaries = [
        [one["id"], one["origin"], one["bytes"], one["sha256"][:16], one["file"]]
        for one in messages["dictionaries"]
    ]
    print(f"messages: zstd {messages['library'] or 'missing'}")
    if dictionaries:
        print(table(columns, dictionaries))
    for fault in messages["faults"]:
        print(f"not used: {cell(fault)}")
    print()
    print(pairs(found["settings"]))
    return 0 if whole else FAILED


def train_dictionary(args: argparse.Namespace) -> int:
    from novacron.durable import write_durably
    from novacron.dwcp.hde.dictionary import file_of
    from novacron.dwcp.hde.training import DEFAULT_BYTES, read_samples, train

    directory = args.samples if args.samples is not None else _kept(args)
    trained = train(read_samples(directory), DEFAULT_BYTES if args.size is None else args.size)
    made = trained.dictionary
    try:
        write_durably(args.output, file_of(made.id, made.content))
    except OSError as exc:
        from novacron.dwcp.hde.errors import TrainingError

        raise TrainingError(
            f"cannot write {args.output}",
            why=exc.strerror or str(exc),
            remedy="name a file in a directory that is there and may be written",
        ) from exc
    print(as_json(_as_json(trained, args.output)) if args.json else _words(trained, args.output))
    return 0


def _kept(args: argparse.Namespace) -> Path:
    """Raises TrainingError: this host's node keeps none."""
    from novacron.cli.stored import StoredNode
    from novacron.dwcp.hde.errors import TrainingError

    directory: Path = StoredNode(args, change=False).directory.root / "dwcp" / "messages"
    if not directory.is_dir():
        raise TrainingError(
            "there are no messages to train from",
            why=f"the node has kept none in {directory}",
            remedy="set it, restart the node, and come back when some transfers were made",
            key="dwcp.hde.keep_messages",
        )
    return directory


def _words(trained: Trained, path: Path) -> str:
    made, gain = trained.dictionary, trained.gain
    saved = 1 - gain.trained / gain.shipped if gain.shipped else 0.0
    verdict = (
        f"{saved:.1%} fewer bytes than with the shipped one"
        if saved > 0
        else "no fewer bytes than with the shipped one: not worth to be used"
    )
    lines = [
        f"{path}: dictionary {made.id} of {len(made.content)} bytes, from {trained.samples} messages",
        f"{gain.messages} messages that it was not made from: {verdict}",
        table(
            ("", "bytes", "of plain"),
            [
                ["plain", size(gain.plain), "100%"],
                ["shipped", size(gain.shipped), _share(gain.shipped, gain.plain)],
                ["this one", size(gain.trained), _share(gain.trained, gain.plain)],
            ],
        ),
    ]
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _as_json(trained: Trained, path: Path) -> dict[str, Any]:
    made = trained.dictionary
    return {
        "file": str(path),
        "id": made.id,
        "bytes": len(made.content),
        "sha256": made.digest.hex(),
        "samples": trained.samples,
        "held_out": trained.gain._asdict(),
    }

"""``python -m novacron.boot``: boot a node, serve until told to stop.

The order of the imports below is part of the boot's speed: what a usage error, ``--check`` or a bad
configuration does not need is imported after they had their chance to end the process.
"""

from __future__ import annotations

import gc

# A boot makes tens of thousands of objects that stay: collecting garbage among them finds none.
gc.disable()

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

from novacron.boot.process_start import process_start  # noqa: E402

START = process_start()
INTERPRETER_SECONDS = START.elapsed()


def leave(number: int, frame: object) -> None:
    """SIGTERM or SIGINT before the node handles signals: nothing has been entered, so nothing is
    to be undone. No exception: it could surface in the middle of any import."""
    os.write(2, b"stopped before the boot began\n")
    os._exit(0)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1, 2, 3 or 78 as ``--help`` says."""
    from novacron.boot_command.arguments import parse

    args = parse(arguments)
    try:
        if args.analyze is not None:
            from novacron.boot_command.inspect import analyze

            return analyze(args)
        if args.check or args.plan:
            from novacron.boot_command.inspect import check, show_plan

            return show_plan(args) if args.plan else check(args)
        from novacron.boot_command.run import run

        return run(args, START, INTERPRETER_SECONDS)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain again while it exits.
        sys.stdout = None
        return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    # There is nothing to reload yet; the default would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(main())

"""The arguments of ``python -m novacron.boot``."""

from __future__ import annotations

import argparse

EPILOG = """\
exit status:
  0   stopped cleanly (or: --exit-when-ready, and everything is healthy)
  1   the boot failed and was rolled back, or a critical component was lost at run time
  2   wrong usage
  3   degraded; only with --exit-when-ready
  78  the configuration is invalid

signals:
  SIGTERM, SIGINT   stop in order; during the boot, roll back; a second one forces the stop
  SIGHUP            reload the configuration keys that can be reloaded

examples:
  python -m novacron.boot
  python -m novacron.boot --config /etc/novacron/node.yaml --set api.port=0
  python -m novacron.boot --check --config node.yaml
  python -m novacron.boot --plan --json
  python -m novacron.boot --analyze blame
  python -m novacron.boot --analyze plot --output boot.svg
  python -m novacron.boot --analyze diff --boot -2 --boot -1

files:
  DATA_DIR/boot/reports/   reports of the last boots (boot.keep_reports)
  DATA_DIR/log/            logs
"""


def parser() -> argparse.ArgumentParser:
    from novacron.config.options import add_configuration_options

    result = argparse.ArgumentParser(
        prog="python -m novacron.boot",
        description="Boot a NovaCron node and serve until stopped.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_configuration_options(result)
    boot = result.add_argument_group("boot")
    boot.add_argument(
        "--ready-file",
        metavar="PATH",
        help="write a JSON object here, atomically, when the node is READY; removed when it stops",
    )
    boot.add_argument(
        "--report", metavar="FILE", help="write the whole boot report here, also if the boot fails"
    )
    boot.add_argument(
        "--exit-when-ready",
        action="store_true",
        help="stop in order once READY: exit 0, or 3 if degraded",
    )
    boot.add_argument(
        "--last-known-good",
        action="store_true",
        help="boot the configuration of the last boot that became READY, instead of the present one",
    )
    boot.add_argument("--modules", metavar="FILE", help=argparse.SUPPRESS)
    modes = result.add_argument_group("instead of booting").add_mutually_exclusive_group()
    modes.add_argument(
        "--check",
        action="store_true",
        help="validate the configuration and the graph, touch nothing",
    )
    modes.add_argument(
        "--plan",
        action="store_true",
        help="show what would start, when, with retries and the worst case",
    )
    modes.add_argument(
        "--analyze",
        choices=("blame", "critical-path", "plot", "json", "diff"),
        help="explain where the time of an earlier boot went",
    )
    details = result.add_argument_group("details of --plan and --analyze")
    details.add_argument(
        "--boot",
        action="append",
        metavar="BOOT",
        help="which boot: -1 the newest (default), -2 the one before, a boot id, or a report file; "
        "--analyze diff takes two",
    )
    details.add_argument("--json", action="store_true", help="print JSON")
    details.add_argument("-o", "--output", metavar="FILE", help="write there instead of printing")
    return result


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit(2) on wrong usage."""
    result = parser()
    args = result.parse_args(arguments)
    if args.last_known_good and (args.check or args.plan or args.analyze):
        result.error("--last-known-good boots; --check, --plan and --analyze do not")
    if args.boot and not args.analyze:
        result.error("--boot goes with --analyze")
    if args.output and not args.analyze:
        result.error("-o/--output goes with --analyze")
    if args.json and not (args.analyze or args.plan or args.check):
        result.error("--json goes with --analyze, --plan or --check")
    return args

"""Answers to "why did this boot take that long?", from reports of boots that are over.

Nothing here is imported by a boot; ``--analyze`` and the API's report page use it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from novacron.boot.report import Report, ReportError

if TYPE_CHECKING:
    from novacron.boot.report_store import ReportStore

main_choices: Final = ("blame", "critical-path", "plot", "json", "diff")
"""What ``--analyze`` takes."""


def render(kind: str, *reports: Report, as_json: bool = False) -> str:
    """One analysis as text (``plot``: an SVG document), or as JSON where it has such a form.

    *reports*: one, or for ``diff`` two, the earlier first.

    Raises:
      ValueError: *kind* is unknown, or the number of reports is not what it needs.
    """
    import json

    from novacron.boot.analysis import blame, critical_path, diff
    from novacron.boot.analysis.plot import as_svg

    if kind == "diff":
        before, after = reports
        if as_json:
            return json.dumps(diff.as_json(before, after), indent=2)
        return diff.as_text(before, after)
    [report] = reports
    match kind:
        case "blame":
            return json.dumps(blame.as_json(report), indent=2) if as_json else blame.as_text(report)
        case "critical-path":
            if as_json:
                return json.dumps(critical_path.as_json(report), indent=2)
            return critical_path.as_text(report)
        case "plot":
            return as_svg(report)
        case "json":
            return report.dumps(indent=2)
        case _:
            raise ValueError(f"no analysis {kind!r}; there are {', '.join(main_choices)}")


def run(
    kind: str,
    store: ReportStore,
    selectors: Sequence[str] = (),
    output_path: str | None = None,
    as_json: bool = False,
) -> int:
    """``--analyze`` *kind*: print (or write to *output_path*) and return the exit code.

    *selectors* as :meth:`ReportStore.find` takes them; none means the newest boot, for ``diff``
    the newest against the one before it, and one for ``diff`` that one against the newest.
    """
    wanted = list(selectors)
    if kind == "diff":
        wanted = [*wanted, "-1"] if len(wanted) == 1 else wanted or ["-2", "-1"]
    needed = 2 if kind == "diff" else 1
    wanted = wanted or ["-1"]
    if len(wanted) != needed:
        return _complain(f"--analyze {kind} takes {needed} boot(s), not {len(wanted)}", 2)
    if kind == "plot" and as_json:
        return _complain("--analyze plot draws SVG; for JSON use --analyze json", 2)
    try:
        reports = [store.find(selector) for selector in wanted]
    except ReportError as exc:
        return _complain(str(exc), 1)
    if kind == "diff" and reports[0].boot_id == reports[1].boot_id:
        return _complain("--analyze diff takes two boots, and these are the same one", 2)
    result = render(kind, *reports, as_json=as_json).rstrip("\n") + "\n"
    if output_path is None and kind == "plot" and sys.stdout.isatty():
        # SVG source on a terminal helps nobody.
        output_path = f"boot-{reports[0].boot_id[:8]}.svg"
    if output_path is None or output_path == "-":
        sys.stdout.write(result)
        return 0
    try:
        Path(output_path).write_text(result, encoding="utf-8")
    except OSError as exc:
        return _complain(
            f"cannot write {output_path}: {exc.strerror}. Choose another file with --output", 1
        )
    sys.stdout.write(f"{output_path}\n")
    return 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"novacron: {message}\n")
    return code

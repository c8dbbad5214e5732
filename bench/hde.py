"""What encoding is worth: an adaptive node against each codec alone and against `zstd --adapt`, on data
and links of several kinds."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import hde_micro, zstd_adapt
from bench.amst_pair import SHARED_MEMORY, parse_size, threads
from bench.harness import BenchError, interleaved, percentile, say
from bench.hde_data import MIB, NAMES, DataMaker, Dataset
from bench.hde_link import SHORT, LinkKind, parse_kinds, standing
from bench.hde_pair import ADAPTIVE, ALONE, FIXED, Ends, Moved, Way, paired
from bench.lab.netns import LabError
from novacron._native import hde

_PEER = "zstd_adapt"
_TIMEOUT = 120.0
"""Seconds for one transfer: many times what the slowest one takes."""
_CELL_SECONDS = 6.0
"""What a cell may take beyond its least number of rounds, since short transfers vary the most."""
_MOST_ROUNDS = 15
_MOST_CELL_SECONDS = 45.0
"""Nor may it take more than this for its least number: a busy machine would need an hour."""
_FIXED_NAMES = tuple(way.name for way in FIXED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", help=f"data sets with commas between them (default: {','.join(NAMES)})"
    )
    parser.add_argument("--links", default=",".join(SHORT), help="links (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, help="rounds measured in each cell (default: by link and duration)"
    )
    parser.add_argument(
        "--size", help="bytes of each data set on each link, such as 64M (default: by link)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the data (default: 1)")
    parser.add_argument(
        "--no-micro", action="store_true", help="leave out what one core encodes, without a link"
    )
    parser.add_argument(
        "--kernel", type=Path, help="to boot the guest whose memory is moved (default: .lab's)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds is not None and args.rounds < 1:
        raise BenchError("--rounds must be at least 1")
    names = _names(args.data)
    kinds = parse_kinds(args.links)
    size = None if args.size is None else parse_size(args.size)
    place = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    left_out: list[dict[str, str]] = []
    cells: list[dict[str, Any]] = []
    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="novacron-bench-", dir=place) as directory,
    ):
        maker = DataMaker(Path(directory), args.seed, args.kernel)
        links = _Links(stack, left_out)
        for name in names:
            made: dict[int, Dataset] = {}
            for kind, ends in links.open(kinds):
                wanted = size or (kind.phases_size if name == "phases" else kind.size)
                say(f"\n{name}, {kind.name} ")
                try:
                    if wanted not in made:
                        made[wanted] = maker.make(name, wanted)
                    target = Path(directory) / "target"
                    cells.append(cell(ends, made[wanted], target, args.rounds))
                except BenchError as exc:
                    left_out.append({"data": name, "link": kind.name, "why": str(exc)})
            for data in made.values():
                maker.discard(data)
    say("\n")
    if not cells:
        raise BenchError("nothing could be measured: " + "; ".join(one["why"] for one in left_out))
    return {"cells": cells, **summary(cells), "left_out": left_out} | {
        "micro": None if args.no_micro else _micro(left_out),
        "seed": args.seed,
        "threads": threads(),
        "peers": {"zstd": zstd_adapt.version()},
        "libraries": {codec: hde.version(codec) for codec in hde.available() if codec != "raw"},
    }


def _micro(left_out: list[dict[str, str]]) -> dict[str, Any] | None:
    """What one core encodes, without a link; None where that could not be measured."""
    say("\none core ")
    try:
        return hde_micro.measure()
    except BenchError as exc:
        left_out.append({"data": "micro", "link": "none", "why": str(exc)})
        return None


def _names(words: str | None) -> tuple[str, ...]:
    if words is None:
        return NAMES
    found = tuple(word.strip() for word in words.split(","))
    unknown = [name for name in found if name not in NAMES]
    if unknown:
        raise BenchError(f"{unknown[0]!r} is none of the data sets {', '.join(NAMES)}")
    return found


class _Links:
    """Made once and kept: most data sets are the same on several links."""

    def __init__(self, stack: contextlib.ExitStack, left_out: list[dict[str, str]]) -> None:
        self._stack = stack
        self._left_out = left_out
        self._standing: dict[str, Ends | None] = {}

    def open(self, kinds: Sequence[LinkKind]) -> list[tuple[LinkKind, Ends]]:
        for kind in kinds:
            if kind.name not in self._standing:
                try:
                    place = self._stack.enter_context(standing(kind))
                    self._standing[kind.name] = self._stack.enter_context(paired(place))
                except (BenchError, LabError) as exc:
                    self._standing[kind.name] = None
                    self._left_out.append({"data": "", "link": kind.name, "why": str(exc)})
        made = [(kind, self._standing[kind.name]) for kind in kinds]
        return [(kind, ends) for kind, ends in made if ends is not None]


def cell(ends: Ends, data: Dataset, target: Path, rounds: int | None) -> dict[str, Any]:
    """One data set over one link in every way, in turn; a way that failed has null for seconds."""
    kind = ends.place.kind
    moved: dict[str, list[Moved]] = {}
    errors: dict[str, str] = {}

    def subject(name: str, move: Callable[[], Moved]) -> Callable[[], None]:
        def once() -> None:
            if name not in errors:
                try:
                    moved.setdefault(name, []).append(move())
                except BenchError as exc:
                    errors[name] = str(exc)
                    moved.pop(name, None)
                    target.unlink(missing_ok=True)
                    ends.reset()
            say(".")

        return once

    def amst(way: Way) -> Callable[[], Moved]:
        return lambda: ends.move(data, way, target, _TIMEOUT)

    ways = [ADAPTIVE, *FIXED] + ([ALONE] if data.base is not None else [])
    subjects = [subject(way.name, amst(way)) for way in ways]
    subjects.append(
        subject(
            _PEER,
            lambda: zstd_adapt.move(data, ends.place, target, ends.congestion, _TIMEOUT),
        )
    )
    interleaved(subjects, 1, warm_up=0)
    again = rounds_of(kind, rounds, sum(runs[0].seconds for runs in moved.values())) - 1
    if again:
        interleaved(subjects, again, warm_up=0)
    return {"data": data.name, "link": kind.name} | figures(data, moved, errors)


def rounds_of(kind: LinkKind, wanted: int | None, round_seconds: float) -> int:
    """How often a cell is measured whose first round took *round_seconds*."""
    if wanted is not None:
        return wanted
    seconds = max(round_seconds, 1e-3)
    least = max(1, min(kind.rounds, int(_MOST_CELL_SECONDS / seconds)))
    return max(least, min(_MOST_ROUNDS, int(_CELL_SECONDS / seconds)))


def figures(data: Dataset, moved: dict[str, list[Moved]], errors: dict[str, str]) -> dict[str, Any]:
    """What stands in the result for a cell."""
    seconds = {name: percentile([one.seconds for one in runs], 0.5) for name, runs in moved.items()}
    fixed = {name: seconds[name] for name in _FIXED_NAMES if name in seconds}
    best = min(fixed, key=lambda name: fixed[name]) if fixed else None
    adaptive = seconds.get(ADAPTIVE.name)

    def compared(other: float | None) -> float | None:
        return None if other is None or adaptive is None else round(other / adaptive, 4)

    def of_all(value: Callable[[Moved], float], digits: int) -> dict[str, float]:
        return {
            name: round(percentile([value(one) for one in runs], 0.5), digits)
            for name, runs in moved.items()
        }

    names = [ADAPTIVE.name, *_FIXED_NAMES, _PEER] + ([ALONE.name] if data.base else [])
    wire = of_all(lambda one: one.wire_bytes, 0)
    result: dict[str, Any] = {
        **{f"{name}_s": _rounded(seconds.get(name)) for name in names},
        "best_fixed": best,
        "ratio_to_best": compared(None if best is None else fixed[best]),
        "ratio_to_zstd_adapt": compared(seconds.get(_PEER)),
        "wire_bytes": wire.get(ADAPTIVE.name),
        "wire_bytes_by_way": wire,
        "cpu_s_by_way": of_all(lambda one: one.cpu_seconds, 4),
        "iqr_s_by_way": {
            name: round(
                percentile([one.seconds for one in runs], 0.75)
                - percentile([one.seconds for one in runs], 0.25),
                5,
            )
            for name, runs in moved.items()
        },
        "size_bytes": data.size,
        "rounds": max((len(runs) for runs in moved.values()), default=0),
        "verified": not errors,
        "coding": moved[ADAPTIVE.name][-1].coding if ADAPTIVE.name in moved else None,
    }
    if data.base is not None and adaptive is not None and ALONE.name in wire:
        result["wire_to_zstd1_alone"] = round(wire[ADAPTIVE.name] / wire[ALONE.name], 4)
    if data.note:
        result["note"] = data.note
    if errors:
        result["errors"] = errors
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def summary(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What stands at the top; null where no cell has it."""
    to_best = [(one["ratio_to_best"], one) for one in cells if one["ratio_to_best"] is not None]
    worst, where = min(to_best, key=lambda pair: pair[0], default=(None, None))
    phases = [one for one in cells if one["data"] == "phases"]
    return {
        "worst_ratio_to_best": worst,
        "worst_cell": None if where is None else f"{where['data']}, {where['link']}",
        "geomean_ratio_to_best": geomean([ratio for ratio, _ in to_best]),
        "worst_ratio_to_zstd_adapt": min(_known(cells, "ratio_to_zstd_adapt"), default=None),
        "geomean_ratio_to_zstd_adapt": geomean(_known(cells, "ratio_to_zstd_adapt")),
        "phases_ratio_to_zstd_adapt": {one["link"]: one["ratio_to_zstd_adapt"] for one in phases},
        "dirty_wire_to_zstd1_alone": {
            name: max(_known([c for c in cells if c["data"] == name], "wire_to_zstd1_alone"))
            for name in dict.fromkeys(one["data"] for one in cells)
            if name.startswith("dirty-")
            and _known([c for c in cells if c["data"] == name], "wire_to_zstd1_alone")
        },
    }


def _known(cells: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [one[key] for one in cells if one.get(key) is not None]


def geomean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return round(math.exp(sum(math.log(value) for value in values) / len(values)), 4)


def as_text(result: dict[str, Any]) -> str:
    names = ["adaptive", *_FIXED_NAMES, _PEER]
    lines = [
        "seconds until everything was there and checked, medians; MiB on the wire is of adaptive",
        "",
        f"{'data':<13}{'link':<12}{'MiB':>5} |"
        + "".join(f"{name:>11}" for name in names)
        + f" |{'best':>7}{'/ best':>8}{'/ --adapt':>10}{'wire':>9}",
    ]
    for row in result["cells"]:
        lines.append(
            f"{row['data']:<13}{row['link']:<12}{row['size_bytes'] / MIB:>5.0f} |"
            + "".join(f"{_number(row[f'{name}_s'], 3):>11}" for name in names)
            + f" |{row['best_fixed'] or '-':>7}{_number(row['ratio_to_best'], 3):>8}"
            f"{_number(row['ratio_to_zstd_adapt'], 2):>10}"
            f"{_number((row['wire_bytes'] or 0) / MIB, 2):>9}"
        )
        lines += [f"    {name}: {why}" for name, why in row.get("errors", {}).items()]
    lines += ["", f"best fixed / adaptive: worst {_number(result['worst_ratio_to_best'], 3)} "]
    lines[-1] += (
        f"({result['worst_cell']}), geometric mean {_number(result['geomean_ratio_to_best'], 3)}; "
        f"zstd --adapt / adaptive: worst {_number(result['worst_ratio_to_zstd_adapt'], 2)}"
    )
    for name, ratio in result["dirty_wire_to_zstd1_alone"].items():
        lines.append(f"{name}: {ratio:.3f} of the bytes that zstd 1 alone sends")
    if result["micro"] is not None:
        lines += ["", hde_micro.as_text(result["micro"])]
    for one in result["left_out"]:
        lines.append(f"left out: {one['data'] or 'everything'}, {one['link']}: {one['why']}")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    cells = result["cells"]
    figure, (left, right) = subplots(1, 2, width=12.0, height=max(3.0, 0.25 * len(cells)))
    labels = [f"{row['data']}, {row['link']}" for row in cells]
    for axes, key, words in (
        (left, "ratio_to_best", "best fixed codec / adaptive"),
        (right, "ratio_to_zstd_adapt", "zstd --adapt / adaptive"),
    ):
        axes.barh(labels, [row[key] or 0 for row in cells], color="#2f6fab")
        axes.axvline(1, color="#7c8796", linewidth=1)
        axes.invert_yaxis()
        axes.set_xlabel(f"time: {words}")
    right.set_yticks([])
    save(figure, path, result["environment"])

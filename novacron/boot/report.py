"""The boot report: one JSON object that says what a boot did, when, and how it ended.

Every time in it is in seconds since the kernel started the process, unless a field says otherwise.
``docs/reference/boot-report.md`` describes the fields. The engine fills a :class:`Report` while it
boots; ``--analyze``, the API and the benches read it. Imported by every boot, so it imports
nothing that costs (0.3 ms).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from novacron.errors import BootError, InvalidError

if TYPE_CHECKING:
    from typing import TypedDict

    class ErrorFields(TypedDict):
        """An error as an operator reads it."""

        error: str
        what: str
        why: str
        remedy: str
        key: str

    class Attempt(TypedDict):
        """One call of ``initialize``; *outcome* is ready, failed, timeout or cancelled."""

        number: int
        start: float
        end: float | None
        outcome: str
        error: ErrorFields | None

    class ComponentRecord(TypedDict):
        """One component's boot. *stopped* is when its shutdown was over, null while it serves."""

        name: str
        phase: str
        criticality: str
        requires: list[str]
        wants: list[str]
        state: str
        phase_started: float | None
        eligible: float | None
        started: float | None
        ready: float | None
        attempts: list[Attempt]
        fallback: bool
        retry_sleep: float
        stopped: float | None

    class PhaseRecord(TypedDict):
        name: str
        start: float
        end: float | None
        deadline: float
        outcome: str | None

    class PreludeRecord(TypedDict):
        """What happened before the engine ran: interpreter, imports, configuration."""

        name: str
        start: float
        end: float

    class CheckpointRecord(TypedDict):
        name: str
        at: float
        took: float


VERSION: Final = 1
PHASES: Final = ("pre_init", "core", "services", "post_init")

_NUMBER: Final = (int, float)
_OPTIONAL_NUMBER: Final = (int, float, type(None))
_TEXT: Final = (str,)
_OPTIONAL_OBJECT: Final = (dict, type(None))
_LIST: Final = (list,)

_Shape = Mapping[str, tuple[type, ...]]

_REPORT: Final[_Shape] = {
    "version": (int,),
    "boot_id": _TEXT,
    "pid": (int,),
    "started": _NUMBER,
    "state": _TEXT,
    "schedule": (str, type(None)),
    "max_concurrency": (int, type(None)),
    "seconds": _OPTIONAL_NUMBER,
    "prelude": _LIST,
    "phases": _LIST,
    "components": _LIST,
    "checkpoints": _LIST,
    "rollback": _OPTIONAL_OBJECT,
    "recovered": _OPTIONAL_OBJECT,
    "warnings": _LIST,
    "degraded": _LIST,
    "failure": _OPTIONAL_OBJECT,
    "critical_path": _LIST,
    "efficiency": _OPTIONAL_NUMBER,
    "addresses": (dict,),
}
_ITEMS: Final[Mapping[str, _Shape]] = {
    "prelude": {"name": _TEXT, "start": _NUMBER, "end": _NUMBER},
    "phases": {
        "name": _TEXT,
        "start": _NUMBER,
        "end": _OPTIONAL_NUMBER,
        "deadline": _NUMBER,
        "outcome": (str, type(None)),
    },
    "components": {
        "name": _TEXT,
        "phase": _TEXT,
        "criticality": _TEXT,
        "requires": _LIST,
        "wants": _LIST,
        "state": _TEXT,
        "phase_started": _OPTIONAL_NUMBER,
        "eligible": _OPTIONAL_NUMBER,
        "started": _OPTIONAL_NUMBER,
        "ready": _OPTIONAL_NUMBER,
        "attempts": _LIST,
        "fallback": (bool,),
        "retry_sleep": _NUMBER,
        "stopped": _OPTIONAL_NUMBER,
    },
    "checkpoints": {"name": _TEXT, "at": _NUMBER, "took": _NUMBER},
    "degraded": {"name": _TEXT, "why": _TEXT},
}
_ATTEMPT: Final[_Shape] = {
    "number": (int,),
    "start": _NUMBER,
    "end": _OPTIONAL_NUMBER,
    "outcome": _TEXT,
    "error": _OPTIONAL_OBJECT,
}
_ERROR: Final[_Shape] = {
    "error": _TEXT,
    "what": _TEXT,
    "why": _TEXT,
    "remedy": _TEXT,
    "key": _TEXT,
}


class ReportError(BootError, InvalidError):
    """A boot report cannot be read: damaged, cut short, or of a version this code does not know."""

    code = "boot.report"


class Report:
    """A boot report; ``data`` is exactly the JSON object, the properties are typed ways into it."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data: Final = data

    @classmethod
    def new(
        cls,
        *,
        boot_id: str,
        pid: int,
        started: float,
        schedule: str,
        max_concurrency: int,
    ) -> Report:
        """The report of a boot that has only just begun. *started*: epoch of the process start."""
        return cls(
            {
                "version": VERSION,
                "boot_id": boot_id,
                "pid": pid,
                "started": started,
                "state": "starting",
                "schedule": schedule,
                "max_concurrency": max_concurrency,
                "seconds": None,
                "prelude": [],
                "phases": [],
                "components": [],
                "checkpoints": [],
                "rollback": None,
                "recovered": None,
                "warnings": [],
                "degraded": [],
                "failure": None,
                "critical_path": [],
                "efficiency": None,
                "addresses": {},
            }
        )

    @classmethod
    def from_json(cls, value: object) -> Report:
        """Check *value*'s shape and wrap it; unknown fields are kept, so newer reports read.

        Raises:
          ReportError: *value* is not a boot report this code understands.
        """
        data = _checked(value, _REPORT, "report")
        if data["version"] != VERSION:
            raise ReportError(
                "cannot read the boot report",
                why=f"it has version {data['version']}, this code reads version {VERSION}",
                remedy="analyse it with the release that wrote it",
            )
        for field, shape in _ITEMS.items():
            for index, item in enumerate(data[field]):
                _checked(item, shape, f"{field}[{index}]")
        for component in data["components"]:
            where = f"component {component['name']}"
            _texts(component["requires"], f"{where}, requires")
            _texts(component["wants"], f"{where}, wants")
            for attempt in component["attempts"]:
                _checked(attempt, _ATTEMPT, f"{where}, attempt")
                if attempt["error"] is not None:
                    _checked(attempt["error"], _ERROR, f"{where}, error")
        _texts(data["critical_path"], "critical_path")
        _texts(data["warnings"], "warnings")
        if data["failure"] is not None:
            _checked(data["failure"], _ERROR, "failure")
        return cls(data)

    @classmethod
    def loads(cls, text: str | bytes) -> Report:
        """Parse JSON text.

        Raises:
          ReportError: it is not JSON, or not a boot report.
        """
        try:
            value = json.loads(text)
        # RecursionError: "[[[[…" from a damaged file; the parser gives up, the reader must not.
        except (ValueError, RecursionError) as exc:
            raise ReportError("cannot read the boot report", why=f"it is not JSON ({exc})") from exc
        return cls.from_json(value)

    def to_json(self) -> dict[str, Any]:
        """The JSON object itself, not a copy."""
        return self.data

    def dumps(self, *, indent: int | None = None) -> str:
        return json.dumps(self.data, indent=indent, ensure_ascii=False, allow_nan=False)

    @property
    def boot_id(self) -> str:
        return str(self.data["boot_id"])

    @property
    def started(self) -> float:
        """Epoch seconds of the process start."""
        return float(self.data["started"])

    @property
    def state(self) -> str:
        return str(self.data["state"])

    @property
    def seconds(self) -> float | None:
        """Seconds to READY or to failure; None while booting."""
        value = self.data["seconds"]
        return None if value is None else float(value)

    @property
    def prelude(self) -> list[PreludeRecord]:
        records: list[PreludeRecord] = self.data["prelude"]
        return records

    @property
    def phases(self) -> list[PhaseRecord]:
        records: list[PhaseRecord] = self.data["phases"]
        return records

    @property
    def components(self) -> list[ComponentRecord]:
        records: list[ComponentRecord] = self.data["components"]
        return records

    @property
    def checkpoints(self) -> list[CheckpointRecord]:
        records: list[CheckpointRecord] = self.data["checkpoints"]
        return records

    @property
    def failure(self) -> dict[str, Any] | None:
        value: dict[str, Any] | None = self.data["failure"]
        return value

    @property
    def last_moment(self) -> float:
        """The greatest time in the report: where its time axis ends."""
        moments = [0.0, self.seconds or 0.0]
        moments += [record["end"] for record in self.prelude]
        moments += [phase["end"] or phase["start"] for phase in self.phases]
        moments += [end for component in self.components if (end := finished(component))]
        moments += [checkpoint["at"] for checkpoint in self.checkpoints]
        return float(max(moments))


def finished(component: ComponentRecord) -> float | None:
    """When the component's start was over, well or badly; None while it runs or never began."""
    if component["ready"] is not None:
        return component["ready"]
    if component["attempts"]:
        return component["attempts"][-1]["end"]
    return None


def _checked(value: object, shape: _Shape, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ReportError("cannot read the boot report", why=f"{where} is not an object")
    for field, types in shape.items():
        if field not in value:
            raise ReportError("cannot read the boot report", why=f"{where} has no {field}")
        found = value[field]
        # bool is an int to isinstance, but `true` is no time; NaN and infinity are no times either.
        if not isinstance(found, types) or (
            isinstance(found, bool) if bool not in types else False
        ):
            raise ReportError(
                "cannot read the boot report",
                why=f"{where}.{field} is {type(found).__name__}, not {_accepted(types)}",
            )
        if isinstance(found, float) and not abs(found) < 1e300:
            raise ReportError(
                "cannot read the boot report", why=f"{where}.{field} is not a finite number"
            )
    return value


def _accepted(types: tuple[type, ...]) -> str:
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)


def _texts(values: list[object], where: str) -> None:
    if not all(isinstance(value, str) for value in values):
        raise ReportError("cannot read the boot report", why=f"{where} holds more than text")

"""How what was moved was encoded: the account of it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from novacron.record import Record

R = TypeVar("R", bound=Record)

RUNGS: Final = ("raw", "lz4", "zstd -5", "zstd 1", "zstd 3", "zstd 6", "zstd 9")
"""The ladder of codecs, by the engine's number (``native/include/nc_hde.h``)."""
REASONS: Final = (
    "nothing was known of the link yet",
    "the link is what bounds: fewer bytes are faster",
    "the link's queue ran dry: less work is faster",
    "the content is another one",
    "the CPU that encoding may use was used up",
)
"""By the engine's number."""
MAX_DECISIONS: Final = 32


class Coded(Record):
    """What one way of encoding was used for. Bytes of content, and what they were on the wire."""

    chunks: int = 0
    bytes: int = 0
    wire_bytes: int = 0

    def plus(self, other: Coded) -> Coded:
        return Coded(
            self.chunks + other.chunks,
            self.bytes + other.bytes,
            self.wire_bytes + other.wire_bytes,
        )


class StageSeconds(Record):
    """CPU seconds by stage, of the engine's threads."""

    read: float = 0.0
    """Reading the source and checking it."""
    zero: float = 0.0
    sample: float = 0.0
    delta: float = 0.0
    encode: float = 0.0
    seal: float = 0.0
    decode: float = 0.0
    """Of what was received: codec, difference and checksum."""

    def plus(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(*(mine + its for mine, its in zip(self, other, strict=True)))


class Decision(Record):
    """The codec changed."""

    at: float
    """Seconds since the epoch."""
    before: str
    after: str
    why: str
    link_bps: int
    """What the link was believed to take, in bytes a second."""
    encode_bps: int
    """What one thread encodes with the new codec, in bytes a second; 0 for raw."""
    ratio: float
    """Content for each byte on the wire, with the new codec."""


WAYS: Final = ("zero", "raw", "lz4", "zstd", "delta")
"""The fields of a report that are a :class:`Coded`, in their order."""


class CodingReport(Record):
    zero: Coded = Coded()
    """Nothing but zeros: no bytes were sent for them."""
    raw: Coded = Coded()
    lz4: Coded = Coded()
    zstd: Coded = Coded()
    delta: Coded = Coded()
    """Sent as the difference to what the receiver had; among the three above as well."""
    refused_bases: int = 0
    """Chunks that were sent whole in the end, since the receiver had something else."""
    budget_chunks: int = 0
    """Chunks that no codec was used on because the CPU for that was used up."""
    cpu_seconds: StageSeconds = StageSeconds()
    decisions: tuple[Decision, ...] = ()
    """The last of them, oldest first."""

    @property
    def bytes(self) -> int:
        """Of content, zeros included."""
        return self.zero.bytes + self.raw.bytes + self.lz4.bytes + self.zstd.bytes

    @property
    def wire_bytes(self) -> int:
        """What the content became: without headers, and with what was sent again."""
        return self.raw.wire_bytes + self.lz4.wire_bytes + self.zstd.wire_bytes

    def plus(self, other: CodingReport) -> CodingReport:
        decisions = sorted((*self.decisions, *other.decisions), key=lambda one: one.at)
        return CodingReport(
            self.zero.plus(other.zero),
            self.raw.plus(other.raw),
            self.lz4.plus(other.lz4),
            self.zstd.plus(other.zstd),
            self.delta.plus(other.delta),
            self.refused_bases + other.refused_bases,
            self.budget_chunks + other.budget_chunks,
            self.cpu_seconds.plus(other.cpu_seconds),
            tuple(decisions[-MAX_DECISIONS:]),
        )

    @property
    def ratio(self) -> float | None:
        """Content for each byte it became, zeros left out; None where nothing was sent."""
        return (self.bytes - self.zero.bytes) / self.wire_bytes if self.wire_bytes else None

    def as_json(self) -> dict[str, Any]:
        return {
            "bytes": self.bytes,
            "wire_bytes": self.wire_bytes,
            "ratio": round(self.ratio, 3) if self.ratio is not None else None,
            **{way: getattr(self, way)._asdict() for way in WAYS},
            "refused_bases": self.refused_bases,
            "budget_chunks": self.budget_chunks,
            "cpu_seconds": {
                stage: round(seconds, 6) for stage, seconds in self.cpu_seconds._asdict().items()
            },
            "decisions": [one._asdict() for one in self.decisions],
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> CodingReport:
        """What :meth:`as_json` made; of an empty one, nothing.

        Raises:
          ValueError: it is not that.
        """
        if not document:
            return NOTHING
        try:
            return cls(
                **{way: _of(Coded, document[way]) for way in WAYS},
                refused_bases=_number(document["refused_bases"], int),
                budget_chunks=_number(document["budget_chunks"], int),
                cpu_seconds=_of(StageSeconds, document["cpu_seconds"]),
                decisions=tuple(
                    _of(Decision, one) for one in document["decisions"][-MAX_DECISIONS:]
                ),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError("it is no report of encoding") from exc


NOTHING: Final = CodingReport()
"""Of what was not encoded."""


def _of(kind: type[R], values: Mapping[str, Any]) -> R:
    """Raises KeyError, TypeError, ValueError: a field is missing, or not of its type."""
    found: dict[str, Any] = {}
    for name in kind._fields:
        value, of = values[name], str(kind.__annotations__[name])
        if of == "str":
            if not isinstance(value, str):
                raise ValueError(f"{name} is no text")
            found[name] = value
        else:
            found[name] = _number(value, int if of == "int" else float)
    return kind(**found)


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    # A bool is an int to isinstance, and a whole number is a float to JSON.
    if type(value) is not int and (kind is int or type(value) is not float):
        raise ValueError(f"{value!r} is no number")
    return kind(value)

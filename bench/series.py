"""What several subjects were measured at, round by round."""

from __future__ import annotations

from bench.harness import percentile


class Series:
    """Values by name and subject; the first *warm_up* of each are left out of every figure."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._values: dict[tuple[str, object], list[float]] = {}

    def add(self, subject: object, **values: float) -> None:
        for name, value in values.items():
            self._values.setdefault((name, subject), []).append(value)

    def median(self, name: str, subject: object) -> float:
        return percentile(self._measured(name, subject), 0.5)

    def iqr(self, name: str, subject: object) -> float:
        """Distance between the quartiles: the half of the values in the middle lies within."""
        values = self._measured(name, subject)
        return percentile(values, 0.75) - percentile(values, 0.25)

    def _measured(self, name: str, subject: object) -> list[float]:
        return self._values[name, subject][self._warm_up :]

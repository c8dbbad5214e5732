from __future__ import annotations

from typing import ClassVar

import pytest

from novacron.record import Record


class Point(Record):
    """Two fields and a default."""

    x: int
    y: int = 2

    @property
    def total(self) -> int:
        return self.x + self.y


def test_fields_have_names_defaults_and_an_order() -> None:
    point = Point(1)

    assert (point.x, point.y, point.total) == (1, 2, 3)
    assert point == Point(x=1, y=2) == (1, 2)
    assert tuple(Point(y=5, x=4)) == (4, 5)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert repr(point) == "Point(x=1, y=2)"
    assert point._asdict() == {"x": 1, "y": 2}


class Marked(Record):
    """A field after a class variable, which is none."""

    unit: ClassVar[str] = "metre"
    length: int


def test_a_class_variable_is_no_field() -> None:
    assert Marked(3) == (3,)
    assert Marked.unit == Marked(length=3).unit == "metre"


def test_a_copy_may_differ() -> None:
    assert Point(1)._replace(y=9) == Point(1, 9)
    with pytest.raises(TypeError, match="takes x, y"):
        Point(1)._replace(z=1)


def test_nothing_can_be_changed_or_added() -> None:
    point = Point(1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError):
            setattr(point, name, 3)


@pytest.mark.parametrize(
    ("values", "named", "words"),
    [
        ((), {}, "needs x"),
        ((1, 2, 3), {}, "takes x, y"),
        ((1,), {"x": 1}, "takes x, y"),
        ((), {"x": 1, "z": 2}, "takes x, y"),
    ],
)
def test_wrong_fields_are_named(values: tuple[int, ...], named: dict[str, int], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Point(*values, **named)

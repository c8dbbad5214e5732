"""Immutable values with named fields, for modules that every boot imports.

:class:`typing.NamedTuple` compiles source text for each class: 0.14 ms, and a boot defines fifty of
them, 2 % of its time to READY. This makes the same kind of tuple without compiling anything, and
takes a little longer for each instance.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record(tuple[Any, ...]):
    """A tuple whose annotated fields have names, in order; a value given in the class is a default.
    What is annotated ``ClassVar`` is no field.

    Raises TypeError when made without a field that has no default, or with one it does not have.
    """

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        own = cls.__dict__
        # Annotations are strings (PEP 563 in every module), so this costs no import of theirs.
        cls._fields = tuple(
            name
            for name, kind in own.get("__annotations__", {}).items()
            if not str(kind).startswith("ClassVar")
        )
        cls._defaults = {name: own[name] for name in cls._fields if name in own}
        for index, name in enumerate(cls._fields):
            setattr(cls, name, property(itemgetter(index)))

    def __new__(cls, *values: Any, **named: Any) -> Self:
        if named or len(values) != len(cls._fields):
            return tuple.__new__(cls, cls._arrange(values, named))
        return tuple.__new__(cls, values)

    @classmethod
    def _arrange(cls, values: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        found = list(values)
        for name in cls._fields[len(values) :]:
            if name in named:
                found.append(named.pop(name))
            elif name in cls._defaults:
                found.append(cls._defaults[name])
            else:
                raise TypeError(f"{cls.__name__} needs {name}")
        if named or len(found) != len(cls._fields):
            raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
        return found

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def _replace(self, **changes: Any) -> Self:
        """A copy with other values for the fields named in *changes*."""
        return type(self)(**{**self._asdict(), **changes})

    def _asdict(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({fields})"

"""From component classes to a checked list of definitions, by the type hints of constructors."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from novacron.boot.graph import (
    DuplicateComponentError,
    GraphError,
    UnknownDependencyError,
    topological_order,
)
from novacron.component import Component, Criticality, Phase
from novacron.record import Record

PHASES = tuple(Phase)
_PHASE_INDEX = {phase: index for index, phase in enumerate(PHASES)}


class InjectionError(GraphError):
    """A constructor asks for something nobody provides."""

    code = "boot.graph.injection"


class Definition(Record):
    """What the engine knows of one component: its place in the graph, and the object."""

    name: str
    phase: Phase
    criticality: Criticality
    requires: tuple[str, ...]
    wants: tuple[str, ...]
    component: Component

    @property
    def dependencies(self) -> tuple[str, ...]:
        return self.requires + self.wants


class Registry:
    """Collects component classes and the values their constructors may ask for.

    *values* maps a type to the object injected for a parameter of exactly that type.
    """

    def __init__(self, values: Mapping[type, object] | None = None) -> None:
        self._values: dict[Any, object] = dict(values or {})
        self._classes: dict[str, type[Component]] = {}
        self._by_class: dict[type[Component], str] = {}

    def provide(self, kind: Any, value: object) -> None:
        """Offer *value* to every parameter hinted with exactly *kind*."""
        self._values[kind] = value

    def add(self, component_class: type[Component]) -> None:
        """Raises DuplicateComponentError for a name that is taken."""
        name = component_class.name
        if name in self._classes:
            raise DuplicateComponentError(
                f"component {name} is registered twice",
                why=f"by {_where(self._classes[name])} and by {_where(component_class)}",
                remedy="give one of them another name",
            )
        self._classes[name] = component_class
        self._by_class[component_class] = name

    def resolve(
        self, criticality: Mapping[str, Criticality | str] | None = None
    ) -> list[Definition]:
        """Check the graph, then call every constructor, dependencies first.

        *criticality* overrides classes by component name.

        Raises:
          UnknownDependencyError, CycleError, InjectionError: nothing was constructed.
          ValueError: an override is no class of criticality; nothing was constructed.
        """
        overrides = criticality or {}
        for name in overrides:
            if name not in self._classes:
                raise UnknownDependencyError(
                    f"boot.criticality names {name}",
                    why="no such component is registered",
                    remedy="use one of: " + ", ".join(sorted(self._classes)),
                    key=f"boot.criticality.{name}",
                )
        classes = {
            name: Criticality(overrides.get(name, cls.criticality))
            for name, cls in self._classes.items()
        }
        parameters = {name: self._parameters(cls) for name, cls in self._classes.items()}
        requires: dict[str, tuple[str, ...]] = {}
        wants: dict[str, tuple[str, ...]] = {}
        for name, hints in parameters.items():
            requires[name] = tuple(h.dependency for h in hints if h.dependency and not h.optional)
            wants[name] = tuple(h.dependency for h in hints if h.dependency and h.optional)
        edges = {name: requires[name] + wants[name] for name in self._classes}
        order = topological_order(edges)
        self._check_phases(edges)
        built: dict[str, Component] = {}
        for name in order:
            built[name] = self._construct(name, parameters[name], built)
        return [
            Definition(
                name=name,
                phase=cls.phase,
                criticality=classes[name],
                requires=requires[name],
                wants=wants[name],
                component=built[name],
            )
            for name, cls in self._classes.items()
        ]

    def _parameters(self, component_class: type[Component]) -> list[_Parameter]:
        if component_class.__init__ is object.__init__:
            return []
        try:
            hints = typing.get_type_hints(component_class.__init__)
        except NameError as exc:
            raise InjectionError(
                f"component {component_class.name} cannot be constructed",
                why=f"a hint of its constructor cannot be read: {exc}",
                remedy="import that type at run time, not only for type checkers",
            ) from exc
        found = []
        for parameter in list(inspect.signature(component_class.__init__).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            hint = hints.get(parameter.name)
            kind, optional = _strip_none(hint)
            is_component = isinstance(kind, type) and issubclass(kind, Component)
            dependency = self._by_class.get(kind) if is_component else None
            known = dependency is not None or kind in self._values
            has_default = parameter.default is not parameter.empty
            if not known and not optional and not has_default:
                raise InjectionError(
                    f"component {component_class.name} cannot be constructed",
                    why=f"its parameter {parameter.name} wants {_name_of(hint)}, which nobody provides",
                    remedy="register that component, provide that value, or make it `| None`",
                )
            if not known and has_default:
                continue
            found.append(_Parameter(parameter.name, kind, dependency, optional))
        return found

    def _construct(
        self, name: str, parameters: Sequence[_Parameter], built: Mapping[str, Component]
    ) -> Component:
        arguments = {
            parameter.name: (
                built[parameter.dependency]
                if parameter.dependency is not None
                else self._values.get(parameter.kind)
            )
            for parameter in parameters
        }
        return self._classes[name](**arguments)

    def _check_phases(self, edges: Mapping[str, Sequence[str]]) -> None:
        for name, targets in edges.items():
            phase = self._classes[name].phase
            for target in targets:
                if _PHASE_INDEX[self._classes[target].phase] > _PHASE_INDEX[phase]:
                    raise GraphError(
                        f"component {name} (phase {phase}) depends on {target}",
                        why=f"{target} starts in the later phase {self._classes[target].phase}",
                        remedy="move one of them to another phase",
                    )


class _Parameter(typing.NamedTuple):
    name: str
    kind: Any
    dependency: str | None
    optional: bool


def _strip_none(hint: Any) -> tuple[Any, bool]:
    """``X | None`` → (X, True); anything else → (itself, False)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(arguments) == 1 and len(typing.get_args(hint)) == 2:
            return arguments[0], True
    return hint, False


def _where(component_class: type) -> str:
    return f"{component_class.__module__}.{component_class.__qualname__}"


def _name_of(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or str(hint)

"""From constructor hints to a checked graph: nothing is built before everything is known to fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import pytest
import trio

from novacron.boot.graph import (
    CycleError,
    DuplicateComponentError,
    GraphError,
    UnknownDependencyError,
)
from novacron.boot.registry import Definition, InjectionError, Registry
from novacron.component import Component, Criticality, Phase

built: list[str] = []


@pytest.fixture(autouse=True)
def nothing_built() -> None:
    built.clear()


class Settings:
    pass


class Part(Component):
    name = "part"
    phase = Phase.CORE
    criticality = Criticality.CRITICAL

    async def initialize(self, nursery: trio.Nursery) -> None:
        raise AssertionError("the registry starts nothing")

    async def shutdown(self) -> None:
        raise AssertionError("the registry stops nothing")


class Security(Part):
    name = "security"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        built.append(self.name)


class Database(Part):
    name = "database"

    def __init__(self, security: Security) -> None:
        self.security = security
        built.append(self.name)


class Api(Part):
    name = "api"
    phase = Phase.SERVICES

    def __init__(self, database: Database, cache: Cache | None) -> None:
        self.database = database
        self.cache = cache
        built.append(self.name)


class Cache(Part):
    name = "cache"
    criticality = Criticality.DEGRADED


SETTINGS = Settings()


def resolve(
    *classes: type[Component],
    values: Mapping[Any, object] | None = None,
    criticality: Mapping[str, Any] | None = None,
) -> dict[str, Definition]:
    registry = Registry({Settings: SETTINGS} if values is None else values)
    for component_class in classes:
        registry.add(component_class)
    return {definition.name: definition for definition in registry.resolve(criticality)}


def test_a_component_hint_is_a_requirement_and_gets_the_very_object() -> None:
    found = resolve(Database, Security)

    assert found["database"].requires == ("security",)
    database = found["database"].component
    assert isinstance(database, Database)
    assert database.security is found["security"].component


def test_a_value_is_injected_by_its_exact_type() -> None:
    security = resolve(Security)["security"].component

    assert isinstance(security, Security)
    assert security.settings is SETTINGS


def test_a_wish_is_an_edge_where_the_component_is_registered() -> None:
    found = resolve(Api, Cache, Database, Security)

    assert found["api"].requires == ("database",)
    assert found["api"].wants == ("cache",)
    assert found["api"].dependencies == ("database", "cache")
    api = found["api"].component
    assert isinstance(api, Api)
    assert api.cache is found["cache"].component


def test_a_wish_for_what_is_not_registered_is_none_and_no_edge() -> None:
    found = resolve(Api, Database, Security)

    assert found["api"].wants == ()
    api = found["api"].component
    assert isinstance(api, Api)
    assert api.cache is None


def test_an_optional_value_nobody_provides_is_none() -> None:
    class Modest(Part):
        def __init__(self, text: Optional[str], number: int | None) -> None:  # noqa: UP045
            self.given = (text, number)

    modest = resolve(Modest, values={int: 7})["part"].component
    assert isinstance(modest, Modest)
    assert modest.given == (None, 7)


def test_constructors_run_after_those_of_what_they_need_whatever_the_order_of_registration() -> (
    None
):
    resolve(Api, Database, Security)

    assert built == ["security", "database", "api"]


def test_definitions_come_in_the_order_of_registration() -> None:
    assert list(resolve(Api, Database, Security)) == ["api", "database", "security"]


def test_a_default_stands_in_for_what_nobody_provides() -> None:
    class Patient(Part):
        def __init__(self, seconds: float = 2.5, *rest: object, **more: object) -> None:
            self.seconds = seconds

    without, given = (resolve(Patient, values=v)["part"].component for v in ({}, {float: 9.0}))
    assert isinstance(without, Patient)
    assert isinstance(given, Patient)
    assert (without.seconds, given.seconds) == (2.5, 9.0)


def test_a_requirement_that_is_not_registered_is_named_before_anything_is_built() -> None:
    with pytest.raises(InjectionError) as caught:
        resolve(Security, Api)

    assert "component api cannot be constructed" in caught.value.what
    assert "its parameter database wants Database, which nobody provides" in caught.value.why
    assert built == []


def test_a_value_nobody_provides_is_named_before_anything_is_built() -> None:
    with pytest.raises(InjectionError) as caught:
        resolve(Security, values={})

    assert "its parameter settings wants Settings" in caught.value.why
    assert built == []


def test_a_union_of_two_things_is_no_wish() -> None:
    class Undecided(Part):
        def __init__(self, one: Security | Settings | None) -> None:
            built.append("part")

    with pytest.raises(InjectionError):
        resolve(Undecided, Security)
    assert built == []


def test_a_parameter_without_a_hint_cannot_be_injected() -> None:
    class Silent(Part):
        def __init__(self, thing) -> None:  # type: ignore[no-untyped-def]
            built.append("part")

    with pytest.raises(InjectionError) as caught:
        resolve(Silent)
    assert "its parameter thing wants" in caught.value.why


def test_a_hint_that_only_a_type_checker_knows_is_explained() -> None:
    class Mistyped(Part):
        def __init__(self, thing: NeverImported) -> None:  # type: ignore[name-defined]  # noqa: F821
            built.append("part")

    with pytest.raises(InjectionError) as caught:
        resolve(Security, Mistyped)
    assert "name 'NeverImported' is not defined" in caught.value.why
    assert "import that type at run time" in caught.value.remedy
    assert built == []


def test_a_name_registered_twice_is_refused_with_both_places() -> None:
    class Other(Part):
        name = "cache"

    registry = Registry()
    registry.add(Cache)
    with pytest.raises(DuplicateComponentError) as caught:
        registry.add(Other)

    assert "component cache is registered twice" in caught.value.what
    assert "Cache" in caught.value.why
    assert "Other" in caught.value.why


class Hen(Part):
    name = "hen"

    def __init__(self, egg: Egg) -> None:
        built.append("hen")


class Egg(Part):
    name = "egg"

    def __init__(self, hen: Hen | None) -> None:
        built.append("egg")


def test_a_cycle_also_one_through_a_wish_is_refused_before_any_constructor_ran() -> None:
    with pytest.raises(CycleError) as caught:
        resolve(Security, Hen, Egg)

    assert sorted(set(caught.value.cycle)) == ["egg", "hen"]
    assert caught.value.cycle[0] == caught.value.cycle[-1]
    assert built == []


def test_a_component_of_an_earlier_phase_cannot_depend_on_one_of_a_later_phase() -> None:
    class Early(Part):
        name = "early"
        phase = Phase.PRE_INIT

        def __init__(self, security: Security) -> None:
            built.append("early")

    with pytest.raises(GraphError) as caught:
        resolve(Early, Security)

    assert "component early (phase pre_init) depends on security" in caught.value.what
    assert "starts in the later phase core" in caught.value.why
    assert built == []


@pytest.mark.parametrize("spelled", ["warning", Criticality.WARNING])
def test_an_override_changes_the_class_of_the_component_it_names_alone(spelled: object) -> None:
    found = resolve(Cache, Security, criticality={"cache": spelled})

    assert found["cache"].criticality is Criticality.WARNING
    assert found["security"].criticality is Criticality.CRITICAL


def test_an_override_for_an_unknown_component_names_the_key_and_those_there_are() -> None:
    with pytest.raises(UnknownDependencyError) as caught:
        resolve(Cache, Security, criticality={"cahce": "warning"})

    assert caught.value.key == "boot.criticality.cahce"
    assert caught.value.remedy == "use one of: cache, security"
    assert built == []


def test_an_override_that_is_no_class_builds_nothing() -> None:
    with pytest.raises(ValueError, match="fatal"):
        resolve(Security, criticality={"security": "fatal"})
    assert built == []


def test_the_same_registry_can_be_resolved_again_and_builds_new_objects() -> None:
    registry = Registry({Settings: SETTINGS})
    registry.add(Security)

    [first], [second] = registry.resolve(), registry.resolve()
    assert first.component is not second.component

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.environment.host_class import (
    CLASSES,
    Measured,
    Minimum,
    classify,
    shortfalls,
    size,
)
from novacron.units import GIB, MIB

DEFAULT = Minimum(4, 8 * GIB, 100 * GIB)


@pytest.mark.parametrize(
    ("measured", "grade"),
    [
        (Measured(2, 64 * GIB, 2048 * GIB, 10**11), "below minimum"),
        (Measured(4, 8 * GIB, 100 * GIB, 10**9), "minimum"),
        (Measured(8, 16 * GIB, 500 * GIB, 10**10), "recommended"),
        (Measured(64, 64 * GIB, 2048 * GIB, 10**10), "recommended"),
        (Measured(32, 64 * GIB, 2048 * GIB, 10**11), "enterprise"),
        (Measured(32, 64 * GIB, 2048 * GIB, None), "enterprise"),
        (Measured(), "unknown"),
    ],
)
def test_the_weakest_known_resource_names_the_host(measured: Measured, grade: str) -> None:
    assert classify(measured)["host"] == grade


def test_each_resource_has_its_own_class_and_unknown_is_said() -> None:
    assert classify(Measured(3.5, 16 * GIB, None, 10**10)) == {
        "host": "below minimum",
        "cpus": "below minimum",
        "memory": "recommended",
        "disk": "unknown",
        "network": "recommended",
    }


def test_a_host_bought_to_the_letter_of_the_table_is_enough() -> None:
    # 8 GiB less what firmware and kernel keep; a 100 GB disk less what ext4 keeps.
    measured = Measured(4, 7800 * MIB, int(100e9 * 1.02), None)
    assert shortfalls(measured, DEFAULT) == []
    assert classify(measured)["host"] == "minimum"


def test_each_shortfall_names_its_key_and_both_figures() -> None:
    found = shortfalls(Measured(1.5, 2 * GIB, 20 * GIB), DEFAULT)
    assert [tuple(missing) for missing in found] == [
        ("resources.min_cpus", "1.5 CPUs of 4"),
        ("resources.min_memory_bytes", "2.0 GiB of 8.0 GiB memory"),
        ("resources.min_disk_bytes", "20.0 GiB of 100.0 GiB disk"),
    ]


def test_what_is_not_known_is_not_held_against_the_host() -> None:
    assert shortfalls(Measured(), DEFAULT) == []


amounts = st.one_of(st.none(), st.integers(0, 2**50))


@given(st.builds(Measured, st.floats(0, 10_000), amounts, amounts, amounts), st.integers(0, 3))
def test_more_of_a_resource_never_lowers_the_class(measured: Measured, which: int) -> None:
    order = ["unknown", *CLASSES]
    name = Measured._fields[which]
    value = getattr(measured, name)
    if value is not None:
        better = measured._replace(**{name: value * 2 + 1})
        assert order.index(classify(better)["host"]) >= order.index(classify(measured)["host"])


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (8 * GIB, "8.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text

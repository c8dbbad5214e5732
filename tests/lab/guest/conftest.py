"""What the guest's tests share. Outside of the guest none of them is collected."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.guest.rxe import RxePair, open_rxe_pair
from tests.lab.guest.veth import VethPair, open_veth_pair

# `tests/lab/machine` sets it. The tests load modules and remove devices: not on the host, ever.
IN_GUEST = bool(os.environ.get("LAB_GUEST"))

collect_ignore_glob = [] if IN_GUEST else ["test_*.py"]


def pytest_runtest_setup() -> None:
    # A file that is named on the command line is collected all the same.
    if not IN_GUEST:
        pytest.skip("runs in the guest kernel: make test-lab")


@pytest.fixture
def veth_pair() -> Iterator[VethPair]:
    """Two connected interfaces with an address each. Not together with ``rxe_pair``, which has one."""
    with open_veth_pair() as pair:
        yield pair


@pytest.fixture
def rxe_pair() -> Iterator[RxePair]:
    """Two active Soft-RoCE devices, connected to each other by a wire of their own."""
    with open_rxe_pair() as pair:
        yield pair

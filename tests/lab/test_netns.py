"""Namespaces are apart, their cables do what they are told, and nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bench.lab import netns
from bench.lab.netns import Flow, Lab, LabError, Namespace
from bench.processes import Measured
from tests.lab.privilege import needs_lab
from tests.lab.traffic import SocketPair, arrives, connect, drain, flood

DEADLINE = 30.0
OWNER = """
import sys, time
from bench.lab.relay import wan
with wan() as path:
    child = path.b.spawn(["sleep", "1000"])
    print(path.a.name, path.b.name, child.pid, path.relay.pid, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def ends(lab: Lab) -> tuple[Namespace, Namespace]:
    return lab.namespace("a"), lab.namespace("b")


def own_namespace() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def ends_of(near: trio.socket.SocketType, far: trio.socket.SocketType) -> Flow:
    return Flow(near.getsockname(), far.getsockname())


def close(*pairs: SocketPair) -> None:
    for pair in pairs:
        for end in pair:
            end.close()


def lives(process: Path) -> bool:
    """Whether it runs; what init is slow to wait for is dead all the same."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def dead(process: Path) -> None:
    with trio.fail_after(DEADLINE):
        while lives(process):
            await trio.sleep(0.01)


def test_without_root_there_is_no_laboratory_and_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert netns.obstacle() == "network namespaces need root"
    with pytest.raises(LabError, match="need root"), Lab():
        pass


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "tc" else f"/sbin/{name}")
    assert netns.obstacle() == "tc is not installed (Debian: apt-get install iproute2)"


@needs_lab
async def test_a_cable_joins_two_namespaces_and_the_host_is_not_in_it(
    lab: Lab, ends: tuple[Namespace, Namespace]
) -> None:
    cable = lab.veth(*ends)
    with trio.fail_after(DEADLINE):
        near, far = await connect(*ends, cable.address_b)
        assert await arrives(near, far)
        assert ends[0].flows() == [ends_of(near, far)]
        close((near, far))
    with socket.socket() as outside, pytest.raises(OSError, match="assign requested address"):
        outside.bind((cable.address_b, 0))


@needs_lab
async def test_a_cap_of_a_sixteenth_takes_several_times_as_long(
    lab: Lab, ends: tuple[Namespace, Namespace]
) -> None:
    cable = lab.veth(*ends)
    took = []
    with trio.fail_after(DEADLINE):
        for rate in (160e6, 10e6):
            cable.shape(rate, burst_bytes=64 * 1024)
            near, far = await connect(*ends, cable.address_b)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, near)
                await drain(far, 1 << 20)
                nursery.cancel_scope.cancel()
            took.append(trio.current_time() - began)
            close((near, far))
    assert took[1] > 2 * took[0]


@needs_lab
async def test_a_killed_flow_is_aborted_at_one_end_reset_at_the_other_and_the_rest_live_on(
    lab: Lab, ends: tuple[Namespace, Namespace]
) -> None:
    cable = lab.veth(*ends)
    with trio.fail_after(DEADLINE):
        near, far = await connect(*ends, cable.address_b)
        other = await connect(*ends, cable.address_b)
        flow = ends_of(near, far)
        assert ends[0].kill_flow(flow)
        with pytest.raises(ConnectionAbortedError):
            await near.recv(1)
        with pytest.raises(ConnectionResetError):
            await far.recv(1)
        assert not ends[0].kill_flow(flow), "it is gone"
        assert await arrives(*other)
        close((near, far), other)


@needs_lab
async def test_a_pulled_cable_stops_its_own_path_and_what_waited_arrives_when_it_is_back(
    lab: Lab, ends: tuple[Namespace, Namespace]
) -> None:
    pulled, left = lab.veth(*ends), lab.veth(*ends)
    with trio.fail_after(DEADLINE):
        over_pulled = await connect(*ends, pulled.address_b)
        over_left = await connect(*ends, left.address_b)
        pulled.down()
        assert not await arrives(*over_pulled)
        assert await arrives(*over_left)
        pulled.up()
        assert await over_pulled[1].recv(1)
        close(over_pulled, over_left)


@needs_lab
def test_a_thread_that_entered_comes_back_even_by_an_exception(
    ends: tuple[Namespace, Namespace],
) -> None:
    before = own_namespace()
    seen: list[str] = []
    with pytest.raises(ZeroDivisionError), ends[0].entered():
        with ends[1].entered():
            seen.append(own_namespace())
        seen.append(own_namespace())
        raise ZeroDivisionError
    assert own_namespace() == before
    assert len({before, *seen}) == 3


@needs_lab
def test_a_namespace_has_kernel_parameters_of_its_own(ends: tuple[Namespace, Namespace]) -> None:
    key = Path("/proc/sys/net/ipv4/tcp_fin_timeout")
    before = key.read_text()
    ends[0].sysctl({"net.ipv4.tcp_fin_timeout": 7})
    assert ends[0].run(["cat", str(key)]) == "7\n"
    assert key.read_text() == before
    with pytest.raises(LabError, match=r"net\.no_such = 1"):
        ends[0].sysctl({"net.no_such": 1})


@needs_lab
def test_a_failing_command_is_reported_with_its_words(ends: tuple[Namespace, Namespace]) -> None:
    with pytest.raises(LabError, match="no_such_device"):
        ends[0].configure("link set lo up", "link set no_such_device up")
    with pytest.raises(LabError, match="lower-case word"):
        Lab().namespace("two words")


@needs_lab
async def test_the_end_takes_processes_their_children_and_the_namespaces_along(
    no_leaks: None,
) -> None:
    with Lab() as lab:
        a = lab.namespace("a")
        shell = a.spawn(
            ["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True
        )
        assert shell.stdout is not None
        child = Path("/proc", shell.stdout.readline().strip())
        shell.stdout.close()
        assert lives(child)
    assert shell.returncode == -signal.SIGKILL
    assert not a.path.exists()
    await dead(child)


@needs_lab
async def test_what_a_killed_process_left_is_swept_and_its_relay_ends_by_itself(
    repository: Path,
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", OWNER], cwd=repository, stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            assert owner.stdout is not None
            a, b, child, relay = owner.stdout.readline().split()
            assert not {a, b} & set(netns.sweep()), "its owner lives"
            assert Path("/run/netns", a).exists()
        finally:
            owner.kill()
    await dead(Path("/proc", relay))
    assert lives(Path("/proc", child))
    with Lab() as lab:
        mine = lab.namespace("a")
        assert not Path("/run/netns", a).exists()
        assert not Path("/run/netns", b).exists()
        assert netns.sweep() == []
        assert mine.path.exists()
    await dead(Path("/proc", child))


@needs_lab
def test_a_measured_program_runs_where_its_prefix_says(ends: tuple[Namespace, Namespace]) -> None:
    with Measured(["readlink", "/proc/self/ns/net"], prefix=ends[0].command([])) as process:
        there = process.wait(DEADLINE).output.strip()
    assert there == ends[0].run(["readlink", "/proc/self/ns/net"]).strip() != own_namespace()

from __future__ import annotations

import pytest

from novacron.environment.probes import cgroup
from tests.environment.conftest import Tree

V2 = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_2_takes_the_smallest_limit_on_the_way_up(tree: Tree) -> None:
    tree.put("/proc/self/cgroup", "0::/system.slice/novacron.service\n")
    tree.put("/proc/self/mountinfo", V2)
    base = "/sys/fs/cgroup/system.slice"
    tree.put(f"{base}/memory.max", "1000000\n")
    tree.put(f"{base}/novacron.service/memory.max", "max\n")
    tree.put(f"{base}/cpu.max", "max 100000\n")
    tree.put(f"{base}/novacron.service/cpu.max", "250000 100000\n")
    tree.put(f"{base}/novacron.service/pids.max", "512\n")
    tree.put(f"{base}/novacron.service/cpuset.cpus.effective", "0-3\n")
    assert cgroup.limits(tree.machine) == cgroup.Limits(
        2.5, 1000000, 512, 4, (2,), f"{base}/novacron.service"
    )


def test_version_1_takes_the_smallest_limit_on_the_way_up(tree: Tree) -> None:
    tree.put(
        "/proc/self/cgroup",
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/docker\n1:name=systemd:/\n",
    )
    tree.put(
        "/proc/self/mountinfo",
        "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 25 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
    )
    tree.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    tree.put("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "2000000\n")
    tree.put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "3000000\n")
    tree.put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000\n")
    tree.put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n")
    tree.put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    tree.put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    tree.put("/sys/fs/cgroup/pids/docker/pids.max", "max\n")
    found = cgroup.limits(tree.machine)
    assert (found.cpus, found.memory_bytes, found.pids) == (0.5, 2000000, None)
    assert found.versions == (1,)
    assert found.path == "/sys/fs/cgroup/memory/docker/abc"


def test_a_container_sees_its_group_as_the_mounts_root(tree: Tree) -> None:
    tree.put("/proc/self/cgroup", "4:memory:/docker/abc\n")
    tree.put(
        "/proc/self/mountinfo",
        "30 25 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
    )
    tree.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4096000\n")
    assert cgroup.limits(tree.machine).memory_bytes == 4096000


def test_both_versions_at_once_are_both_asked(tree: Tree) -> None:
    tree.put("/proc/self/cgroup", "4:memory:/\n0::/x\n")
    tree.put(
        "/proc/self/mountinfo",
        "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    tree.put("/sys/fs/cgroup/unified/x/cpu.max", "100000 100000\n")
    found = cgroup.limits(tree.machine)
    assert found.versions == (1, 2)
    assert found.cpus == 1.0
    assert found.memory_bytes is None


def test_a_host_without_control_groups_has_no_limits(tree: Tree) -> None:
    tree.put("/proc/self/cgroup", "")
    tree.put("/proc/self/mountinfo", "")
    assert cgroup.limits(tree.machine) == cgroup.Limits(None, None, None, None, (), "")


def test_a_limit_that_cannot_be_understood_is_an_error_and_not_no_limit(tree: Tree) -> None:
    tree.put("/proc/self/cgroup", "0::/\n")
    tree.put("/proc/self/mountinfo", V2)
    tree.put("/sys/fs/cgroup/memory.max", "a lot\n")
    with pytest.raises(ValueError, match="a lot"):
        cgroup.limits(tree.machine)


def test_the_limits_of_this_very_process_can_be_read() -> None:
    value = cgroup.ask(cgroup.Machine())
    assert value["cpus"] is None or value["cpus"] > 0

"""Files of /proc and /sys may hold anything in the end: a parser answers or raises ValueError."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.environment.ports import parse_tcp_table
from novacron.environment.probes.cgroup import (
    directories,
    parse_cpu_max,
    parse_cpu_quota,
    parse_limit,
    parse_membership,
)
from novacron.environment.probes.cpu import parse_cpu_list, parse_cpuinfo
from novacron.environment.probes.interfaces import parse_count, parse_speed_bps
from novacron.environment.probes.kernel import parse_os_release, parse_uptime
from novacron.environment.probes.memory import parse_meminfo
from novacron.environment.probes.mounts import Mount, mount_of, parse_mountinfo

LENIENT: list[Callable[[str], object]] = [
    parse_cpuinfo,
    parse_meminfo,
    parse_mountinfo,
    parse_membership,
    parse_os_release,
    parse_uptime,
    parse_count,
    parse_speed_bps,
    lambda text: list(parse_tcp_table(text)),
]
STRICT: list[Callable[[str], object]] = [parse_cpu_list, parse_limit, parse_cpu_max]

near_miss = st.text(alphabet="0123456789abcdefABCDEF:/,.-= \t\nkBmaxcpu\\²٣\0", max_size=200)
anything = st.one_of(st.text(max_size=200), near_miss)


@given(anything)
def test_lenient_parsers_answer_to_anything(text: str) -> None:
    for parse in LENIENT:
        parse(text)


@given(anything)
def test_strict_parsers_answer_or_say_that_they_cannot(text: str) -> None:
    for parse in STRICT:
        try:
            parse(text)
        except ValueError:
            continue


@given(anything, anything)
def test_a_quota_is_positive_or_none_or_refused(quota: str, period: str) -> None:
    try:
        cpus = parse_cpu_quota(quota, period)
    except ValueError:
        return
    assert cpus is None or cpus > 0


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_cpu_list_means_the_same_however_it_is_written(cpus: set[int]) -> None:
    assert parse_cpu_list(",".join(map(str, sorted(cpus)))) == cpus
    ranges, ordered = [], sorted(cpus)
    start = previous = ordered[0]
    for cpu in [*ordered[1:], 10**6]:
        if cpu != previous + 1:
            ranges.append(f"{start}-{previous}" if start != previous else f"{start}")
            start = cpu
        previous = cpu
    assert parse_cpu_list(",".join(ranges) + "\n") == cpus


@pytest.mark.parametrize("text", ["3-1", "0-99999999", "-1", "a", "1-", "1-2-3"])
def test_what_is_no_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_cpu_list(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max\n", None),
        ("-1", None),
        ("9223372036854771712", None),
        ("", None),
        (None, None),
        ("1073741824\n", 2**30),
        ("0", 0),
    ],
)
def test_a_limit_is_a_number_or_none(text: str | None, limit: int | None) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["lots", "1.5", "0x10", "٣", "1 2"])
def test_a_limit_that_cannot_be_read_is_not_taken_for_no_limit(text: str) -> None:
    with pytest.raises(ValueError):
        parse_limit(text)


def test_quotas_of_both_versions_are_cpus() -> None:
    assert parse_cpu_max("150000 100000\n") == 1.5
    assert parse_cpu_max("max 100000") is None
    assert parse_cpu_max("50000") == 0.5
    assert parse_cpu_max(None) is None
    assert parse_cpu_quota("200000", "100000") == 2.0
    assert parse_cpu_quota("-1", "100000") is None
    assert parse_cpu_quota(None, None) is None
    for quota in ("0 100000", "100 0"):
        with pytest.raises(ValueError):
            parse_cpu_max(quota)


def test_cpuinfo_of_an_x86_host_is_understood() -> None:
    block = "processor\t: {0}\nmodel name\t: CPU X\nphysical id\t: {1}\ncore id\t\t: {2}\nflags\t\t: fpu vmx aes\n"
    text = "\n".join(block.format(*ids) for ids in [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 1, 0)])
    assert parse_cpuinfo(text) == {
        "model": "CPU X",
        "cores": 3,
        "sockets": 2,
        "flags": ["aes", "vmx"],
    }


def test_cpuinfo_of_an_arm_host_says_what_it_lacks() -> None:
    text = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd aes\nCPU part\t: 0xd0c\n"
    assert parse_cpuinfo(text) == {"model": None, "cores": None, "sockets": None, "flags": ["aes"]}


def test_meminfo_is_in_bytes_where_it_says_kb() -> None:
    text = "MemTotal:       16384 kB\nHugePages_Total:       7\nOdd line\nMore: x kB\n"
    assert parse_meminfo(text) == {"MemTotal": 16384 * 1024, "HugePages_Total": 7}


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 27 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
50 27 8:1 / /data\\040one rw,relatime shared:1 master:2 - xfs /dev/sda1 rw
51 27 8:2 / /data\\040one rw,relatime - ext4 /dev/sdb1 ro
broken line
"""


def test_mounts_are_read_with_their_optional_fields_and_escapes() -> None:
    mounts = parse_mountinfo(MOUNTS)
    assert [mount.point for mount in mounts] == [
        "/",
        "/sys/fs/cgroup/memory",
        "/data one",
        "/data one",
    ]
    assert mounts[1].options == {"rw", "memory"}


def test_a_path_lies_on_the_deepest_and_latest_mount() -> None:
    mounts = parse_mountinfo(MOUNTS)
    found = mount_of("/data one/x", mounts)
    assert found is not None
    assert found.source == "/dev/sdb1"
    other = mount_of("/data oneself", mounts)
    assert other is not None
    assert other.point == "/"
    assert mount_of("/x", []) is None


@given(st.text(alphabet="ab/.", max_size=20), st.text(alphabet="ab/.", max_size=20))
def test_a_groups_directories_never_leave_the_mount(path: str, root: str) -> None:
    found = directories("/" + path, Mount("/" + root, "/mnt", "cgroup2", "", frozenset()))
    assert found[-1] == "/mnt"
    assert all(entry == "/mnt" or entry.startswith("/mnt/") for entry in found)
    assert all(".." not in entry.split("/") for entry in found)
    assert found == sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(
    ("text", "speed"),
    [
        ("10000\n", 10**10),
        ("-1", None),
        ("0", None),
        ("4294967295", None),
        ("2147483647", None),
        ("", None),
        (None, None),
        ("fast", None),
    ],
)
def test_a_speed_is_bits_a_second_or_not_known(text: str | None, speed: int | None) -> None:
    assert parse_speed_bps(text) == speed


def test_os_release_is_unquoted() -> None:
    text = '# comment\nNAME="Debian GNU/Linux"\nID=debian\nODD=\'x\n=y\n'
    assert parse_os_release(text) == {"NAME": "Debian GNU/Linux", "ID": "debian", "ODD": "'x"}


def test_the_table_of_sockets_gives_ports_states_and_inodes() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1CE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1076 1 0 100 0\n"
        "   1: 0100007F:ZZZZ 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0\n"
    )
    assert [tuple(row) for row in parse_tcp_table(text)] == [(7400, "0A", 1076)]

"""Network namespaces joined by veth pairs, with bandwidth caps, gone again in all cases.

    with Lab() as lab:
        a, b = lab.namespace("a"), lab.namespace("b")
        path = lab.veth(a, b)
        path.shape(rate_bps=100e6)
        server = b.spawn(["iperf3", "-s"])

Everything here blocks for some milliseconds at most, so that Trio's tests may call it directly.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

_PREFIX = "nclab"
_DIRECTORY = Path("/run/netns")
_DEADLINE = 30.0
"""Seconds for any of the tools; they take some milliseconds."""
_CLONE_NEWNET = 0x40000000
_NAME = re.compile(rf"{_PREFIX}-(\d+)-(\d+)-\d+-\w+")
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,15}")
_number = itertools.count(1)
_T = TypeVar("_T")
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The laboratory could not do what it was asked for; the text says what and why."""


def obstacle() -> str | None:
    """What keeps this process from building a laboratory here; None if nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("ss", "iproute2"), ("tc", "iproute2")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt-get install {package})"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun is missing or not accessible"
    if shutil.which(shlex.split(os.environ.get("CC", "cc"))[0]) is None:
        return "there is no C compiler for the relay (Debian: apt-get install gcc)"
    # Root without CAP_SYS_ADMIN, as in a container.
    probe = subprocess.run(
        ["unshare", "--net", "true"], capture_output=True, text=True, check=False
    )
    return None if probe.returncode == 0 else f"no network namespace: {probe.stderr.strip()}"


def run(argv: Sequence[str], *, text: str = "", timeout: float = _DEADLINE) -> str:
    """Run *argv* with *text* on its standard input and return what it printed.

    Raises:
      LabError: it failed, or took longer than *timeout* seconds.
    """
    try:
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=timeout, check=True
        ).stdout
    except subprocess.TimeoutExpired as exc:
        raise LabError(f"{argv[0]} took more than {timeout:.0f} s: {' '.join(argv)}") from exc
    except subprocess.CalledProcessError as exc:
        what = f"{' '.join(argv)}\n{text}".strip()
        raise LabError(f"{what}\nfailed: {exc.stderr.strip() or exc.returncode}") from exc
    except OSError as exc:
        raise LabError(f"{argv[0]} cannot be started: {exc}") from exc


def _start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot: tells it from a later one of its number."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])


@dataclass(frozen=True, slots=True)
class Flow:
    """An established TCP connection, seen from the namespace it was listed in."""

    local: tuple[str, int]
    peer: tuple[str, int]


class Namespace:
    """A network namespace with its loopback device up and without IPv6, whose neighbour discovery
    would be packets nobody sent. Made by `Lab.namespace`, removed by the lab."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = _DIRECTORY / name
        self._spawned: list[subprocess.Popen[Any]] = []

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs *argv* in here; it becomes that program, under the same number."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, argv: Sequence[str], *, timeout: float = _DEADLINE) -> str:
        """Run *argv* in here, wait for its end, and return what it printed.

        Raises:
          LabError: it failed, or took longer than *timeout* seconds.
        """
        return run(self.command(argv), timeout=timeout)

    def spawn(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start *argv* in here; *options* are those of Popen. The lab kills what still runs at its
        end, children included; pipes are the caller's to close."""
        process = subprocess.Popen(self.command(argv), **options)
        self._spawned.append(process)
        return process

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block this thread is in here: sockets and children it makes belong here and
        stay. Only this thread: the block must not await.

        Raises:
          LabError: the namespace cannot be entered.
        """
        # /proc/thread-self: the process's main thread may be in another one.
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._set(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                self._set(home)
        finally:
            os.close(home)

    def _set(self, descriptor: int) -> None:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise LabError(f"{self.name}: setns: {os.strerror(ctypes.get_errno())}")

    def configure(self, *lines: str) -> None:
        """Each line is a command of `ip`, such as ``link set lo up``; all are run in here.

        Raises:
          LabError: one failed; those after it were not run.
        """
        run(["ip", "-n", self.name, "-batch", "-"], text="\n".join(lines))

    def sysctl(self, values: Mapping[str, str | int]) -> None:
        """Set the kernel's parameters below net/, which each namespace has for itself:
        ``{"net.ipv4.tcp_congestion_control": "cubic"}``.

        Raises:
          LabError: there is no such parameter, or it does not take that value.
        """
        with self.entered():
            for key, value in values.items():
                try:
                    Path("/proc/sys", *key.split(".")).write_text(f"{value}\n")
                except OSError as exc:
                    raise LabError(f"{key} = {value}: {exc}") from exc

    def flows(self, state: str = "established") -> list[Flow]:
        """The TCP connections of this namespace that are in *state* (as `ss` calls it)."""
        found = []
        for line in run(["ss", "-N", self.name, "-tnH", "state", state]).splitlines():
            local, peer = (end.rpartition(":") for end in line.split()[2:4])
            found.append(Flow((local[0], int(local[2])), (peer[0], int(peer[2]))))
        return found

    def kill_flow(self, flow: Flow) -> bool:
        """Let the kernel abort the local end of *flow* (ECONNABORTED here, a reset there); whether
        there was one. Needs CONFIG_INET_DIAG_DESTROY in the kernel."""
        chosen = "src {}:{} dst {}:{}".format(*flow.local, *flow.peer).split()
        return bool(run(["ss", "-N", self.name, "-K", "-tnH", *chosen]).strip())

    def _remove(self) -> None:
        for process in self._spawned:
            if process.poll() is None:
                process.kill()
        _remove(self.name)
        for process in self._spawned:
            process.wait(_DEADLINE)


def _remove(name: str) -> None:
    """Kill what lives in the namespace, which would keep it alive, and let go of its name."""
    give_up = time.monotonic() + _DEADLINE
    while (_DIRECTORY / name).exists():
        # Another process may sweep the same leftover: what it removed is no failure here.
        with contextlib.suppress(LabError):
            for pid in run(["ip", "netns", "pids", name]).split():
                if int(pid) != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
            run(["ip", "netns", "delete", name])
        if time.monotonic() > give_up:
            raise LabError(f"the network namespace {name} cannot be removed")


def sweep() -> list[str]:
    """Remove the namespaces of processes that ended without doing so; their names."""
    found = []
    for entry in _DIRECTORY.glob(f"{_PREFIX}-*"):
        match = _NAME.fullmatch(entry.name)
        if match is not None and _start_ticks(int(match[1])) != int(match[2]):
            found.append(entry.name)
            _remove(entry.name)
    return found


@dataclass(frozen=True, slots=True)
class Veth:
    """A cable between two namespaces: the device of the same name at both ends."""

    a: Namespace
    b: Namespace
    device: str
    address_a: str
    address_b: str

    def shape(
        self, rate_bps: float, *, queue_bytes: int = 256 * 1024, burst_bytes: int | None = None
    ) -> None:
        """Let each end send at most *rate_bps* (bits a second), *queue_bytes* waiting before that.

        The burst is what may pass unshaped after a pause; by default what 4 ms of the rate carry,
        because the kernel's timer is no finer, and never less than a segment of offloaded TCP.
        """
        burst = burst_bytes or max(64 * 1024, int(rate_bps / 8 * 0.004))
        for end in (self.a, self.b):
            self._discipline(end, f"tbf rate {int(rate_bps)}bit burst {burst} limit {queue_bytes}")

    def _discipline(self, end: Namespace, words: str) -> None:
        where = ["qdisc", "replace", "dev", self.device, "root"]
        run(["tc", "-n", end.name, *where, *words.split()])

    def unshape(self) -> None:
        for end in (self.a, self.b):
            self._discipline(end, "noqueue")

    def down(self) -> None:
        """Pull the cable: both ends lose their carrier, no connection is told."""
        self.a.configure(f"link set {self.device} down")

    def up(self) -> None:
        self.a.configure(f"link set {self.device} up")


class Lab:
    """Owns namespaces and what lives in them; a context manager for one `with` block or one test.

    Entering first sweeps what killed processes left. Names carry this process's number and start,
    so any number of processes may have laboratories at once. Use from one thread at a time.
    """

    def __init__(self) -> None:
        self._cables = itertools.count()
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if (reason := obstacle()) is not None:
            raise LabError(reason)
        sweep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what was started in the namespaces and remove them; harmless when repeated."""
        self._closing.close()

    def enter(self, context: contextlib.AbstractContextManager[_T]) -> _T:
        """Enter *context*, which ends before the namespaces made so far do."""
        return self._closing.enter_context(context)

    def namespace(self, label: str) -> Namespace:
        """A new namespace; *label* (a lower-case word) ends its name, for whoever lists them."""
        if not _LABEL.fullmatch(label):
            raise LabError(f"{label!r} is not a short lower-case word")
        pid = os.getpid()
        name = f"{_PREFIX}-{pid}-{_start_ticks(pid)}-{next(_number)}-{label}"
        namespace = Namespace(name)
        self._closing.callback(namespace._remove)
        run(["ip", "netns", "add", name])
        namespace.sysctl(
            {"net.ipv6.conf.all.disable_ipv6": 1, "net.ipv6.conf.default.disable_ipv6": 1}
        )
        namespace.configure("link set lo up")
        return namespace

    def subnet(self) -> tuple[str, str]:
        """Two addresses of a network of 256 that nothing else in this laboratory uses."""
        number = next(self._cables)
        return (f"10.77.{number}.1", f"10.77.{number}.2")

    def veth(self, a: Namespace, b: Namespace, *, mtu: int = 1500) -> Veth:
        """A new cable between *a* and *b*, with addresses of its own network; two of them between
        the same namespaces are two paths."""
        address_a, address_b = self.subnet()
        device = f"cable{address_a.split('.')[2]}"
        a.configure(
            f"link add {device} mtu {mtu} type veth peer name {device} mtu {mtu} netns {b.name}",
            f"address add {address_a}/24 dev {device}",
            f"link set {device} up",
        )
        b.configure(f"address add {address_b}/24 dev {device}", f"link set {device} up")
        return Veth(a, b, device, address_a, address_b)

"""Which congestion control a data connection gets."""

from __future__ import annotations

import ipaddress
import logging
from typing import Final

from novacron._native import tcp
from novacron.errors import NativeError
from novacron.record import Record

logger = logging.getLogger("novacron.dwcp")

SAME_HOST: Final = "cubic"
"""On loopback there is no queue to keep short, and BBR's pacing only costs: measured against it, 1.5
times the goodput for two thirds of the CPU time (ADR 0092)."""
ELSEWHERE: Final = "bbr"


class Choice(Record):
    wanted: str
    got: str
    why: str
    """Why it is not what was wanted; empty where it is."""


class Congestion:
    """Sets and remembers, for ``status``, the last choice made. Needs the C extension; without it
    connections keep the kernel's default."""

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self.last: Choice | None = None

    def apply(self, fd: int, host: str) -> None:
        """Before ``connect``, or on a connection that was just accepted. Never fails: a connection
        with another algorithm is better than none."""
        wanted = self._setting
        if wanted == "auto":
            wanted = SAME_HOST if is_same_host(host) else ELSEWHERE
        why = ""
        try:
            tcp.choose(fd, wanted)
        except NativeError as exc:
            why = exc.why or exc.what
        try:
            got = tcp.chosen(fd)
        except NativeError:
            got = ""
        choice = Choice(wanted, got, why)
        if choice != self.last and why and self._setting != "auto":
            logger.warning(
                "congestion control %s cannot be used: %s", wanted, why, extra={"got": got}
            )
        self.last = choice


def is_same_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"

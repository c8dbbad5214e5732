"""Which congestion control a data connection gets: chosen by the class of its path, set before it is
made, confirmed when it is, read back."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Final

import trio

from novacron._native import tcp
from novacron.dwcp.acp.classes import core
from novacron.dwcp.acp.classes.core import CHOICES, DATACENTER, DCTCP, PathClass, Policy
from novacron.environment.path import PathMeasure
from novacron.errors import NativeError
from novacron.record import Record

logger = logging.getLogger("novacron.dwcp")

PERMITTED_FOR: Final = 60.0
"""Seconds that what the process may use is believed: a module may be loaded, a list changed."""


class Choice(Record):
    wanted: str
    got: str
    why: str
    """Why it is not what was wanted; empty where it is."""
    path: str = ""
    """The class of its path."""


class Congestion:
    """Sets and remembers, for ``status``, the last choice made. Needs the C extension; without it
    connections keep the kernel's default.

    Args:
      setting: Of ``dwcp.amst.congestion``.
      dctcp: Of ``dwcp.acp.dctcp``.
      path: What was measured of the way to a node.
      mode_of: The network mode of it.
    """

    def __init__(
        self,
        setting: str,
        *,
        dctcp: str = "off",
        path: Callable[[str], PathMeasure | None] = lambda peer: None,
        mode_of: Callable[[str], str] = lambda peer: "auto",
    ) -> None:
        self._setting = setting
        self._dctcp = dctcp == "auto"
        self._path = path
        self._mode_of = mode_of
        self._permitted: frozenset[str] = frozenset()
        self._permitted_until = float("-inf")
        self._warned = ""
        self.last: Choice | None = None

    def rate(self, peer: str) -> int:
        """Bytes a second that a connection to *peer* was seen to deliver lately; 0: not known."""
        found = self._path(peer)
        return found.rate_bps if found is not None else 0

    def classify(self, peer: str, host: str) -> PathClass:
        """The path to *peer*, a node's id or nothing, at the address *host*."""
        return core.classify(self._path(peer), is_same_host(host), self._policy(peer))

    def apply(self, fd: int, host: str, peer: str = "") -> Choice:
        """Before ``connect``. Never fails: a connection with another algorithm is better than none."""
        path = self.classify(peer, host)
        return self._note(self._set(fd, path.congestion, path))

    def confirm(self, fd: int, choice: Choice, peer: str) -> Choice:
        """When it is connected: what both ends agreed on may not bear what was chosen."""
        if not choice.got.startswith(DCTCP):
            return choice
        wanted, why = self._confirmed(fd, choice.path, peer)
        if not why:
            return choice
        path = PathClass(choice.path, wanted, why)
        return self._note(self._set(fd, wanted, path)._replace(wanted=choice.wanted, why=why))

    def accept(self, fd: int, host: str, peer: str, asked: str) -> Choice:
        """On a connection that was just accepted.

        Args:
          asked: What its other end uses; empty where that is not known.
        """
        path = self.classify(peer, host)
        wanted, why = self.answer(asked, peer, host)
        got = wanted
        if wanted == DCTCP:
            got, unfit = self._confirmed(fd, path.name, peer)
            why = unfit or why
        choice = self._set(fd, got, path)
        return self._note(
            choice._replace(wanted=asked if asked in CHOICES else wanted, why=choice.why or why)
        )

    def answer(self, asked: str, peer: str, host: str) -> tuple[str, str]:
        """What connections that are accepted are to use, and why it is not what was asked for."""
        return core.accept(asked, self.classify(peer, host), self._policy(peer))

    def listen(self, fd: int) -> str:
        """Let a listening socket agree on ECN with those who use DCTCP, which the kernel does only
        where the listener uses it as well; why it does not."""
        policy = self._policy("")
        if policy.setting != "auto" or not policy.dctcp:
            return "dwcp.acp.dctcp is off" if policy.setting == "auto" else ""
        if DCTCP not in policy.permitted:
            return "this process may not use dctcp"
        return self._set(fd, DCTCP, PathClass("", DCTCP, "")).why

    def _confirmed(self, fd: int, path: str, peer: str) -> tuple[str, str]:
        try:
            found = tcp.info(fd)
        except NativeError as exc:
            return "", exc.what
        rtt = found.min_rtt_us if found.rtt_us else 0
        measured = path == DATACENTER
        return core.confirm(
            DCTCP, ecn=found.ecn, rtt_us=rtt, measured=measured, policy=self._policy(peer)
        )

    def _policy(self, peer: str) -> Policy:
        if self._setting == "auto" and trio.current_time() >= self._permitted_until:
            self._permitted_until = trio.current_time() + PERMITTED_FOR
            self._permitted = _permitted()
        return Policy(self._setting, self._dctcp, self._mode_of(peer), self._permitted)

    def _set(self, fd: int, wanted: str, path: PathClass) -> Choice:
        why = ""
        try:
            if wanted:
                tcp.choose(fd, wanted)
        except NativeError as exc:
            why = exc.why or exc.what
        try:
            got = tcp.chosen(fd)
        except NativeError:
            got = ""
        return Choice(wanted or got, got, why, path.name)

    def _note(self, choice: Choice) -> Choice:
        if choice.why and self._setting != "auto" and choice.wanted != self._warned:
            self._warned = choice.wanted
            logger.warning(
                "congestion control %s cannot be used: %s",
                choice.wanted,
                choice.why,
                extra={"got": choice.got},
            )
        self.last = choice
        return choice


def _permitted() -> frozenset[str]:
    try:
        return frozenset(name for name in CHOICES if tcp.permitted(name))
    except NativeError:
        return frozenset()


def is_same_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"

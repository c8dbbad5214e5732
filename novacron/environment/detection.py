"""The environment component: asks all probes at once, and never makes anybody wait for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import trio

from novacron._native.ffi import NativeUnavailableError, native
from novacron.component import (
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    JsonObject,
    NodeState,
    NodeView,
    ObservableComponent,
    Phase,
)
from novacron.config.schema import DwcpSettings, ResourcesSettings
from novacron.data_directory import DataDirectory
from novacron.environment.fact import PENDING, Fact, FactUnknownError, Probe, Value
from novacron.environment.inquiry import Inquirer
from novacron.environment.machine import Machine
from novacron.environment.path import PathMeasure
from novacron.environment.probes import PROBES
from novacron.environment.probes.interfaces import fastest_bps

if TYPE_CHECKING:
    from novacron.environment.modes.track import Mode, PathMode
    from novacron.environment.modes.watch import ModeChanges, ModeWatch

logger = logging.getLogger("novacron.environment")

PATIENCE = 30.0
"""Seconds a patient probe waits for the node to be READY; then the boot is over in any case
(``boot.deadlines.total``)."""

START_POLL = 0.1
"""Seconds between looks at whether the node is READY: there is no event for it, and this waits for
nothing that anybody waits for."""


class Environment(ObservableComponent):
    """What machine and network this is.

    ``initialize`` starts the probes and returns: :meth:`facts` says what is known so far, and who
    needs all of it calls :meth:`wait_facts`. A probe that fails or is late leaves its fact
    ``unknown`` with the reason; there is never a guess in its place.

    The network's mode comes from the paths to other nodes. Who measures those tells
    :meth:`observe_path`; until somebody does, the mode is what the devices suggest, and says so.
    """

    name: ClassVar[str] = "environment"
    phase: ClassVar[Phase] = Phase.PRE_INIT
    criticality: ClassVar[Criticality] = Criticality.WARNING
    probes: ClassVar[tuple[Probe, ...]] = PROBES

    def __init__(
        self,
        settings: ResourcesSettings,
        data_directory: DataDirectory,
        view: NodeView,
        dwcp: DwcpSettings,
    ) -> None:
        self._settings = settings
        self._dwcp = dwcp
        self._view = view
        self._machine = Machine(data_directory=str(data_directory.root))
        self._facts: dict[str, Fact] = {}
        # Outlives a restart, because it knows what still hangs.
        self._inquirer = Inquirer(self._machine, settings.probe_timeout)
        self._nursery: trio.Nursery | None = None
        self._told_native = False
        # Outlives a restart as well: the paths did not change by it.
        self._watch: ModeWatch | None = None

    async def initialize(self, nursery: trio.Nursery) -> None:
        self._facts = {probe.name: PENDING for probe in self.probes}
        self._wanted = trio.Event()
        self._nursery = nursery
        self._start_round()

    async def shutdown(self) -> None:
        self._nursery = None

    def facts(self) -> Mapping[str, JsonObject]:
        """Every fact as far as it is known: ``{"state", "value", "reason", "took_ms"}`` by name."""
        return {name: fact.as_json() for name, fact in self._facts.items()}

    def fact(self, name: str) -> Fact:
        """One fact.

        Raises:
          KeyError: no probe has that name.
        """
        return self._facts[name]

    async def wait_facts(self) -> Mapping[str, JsonObject]:
        """:meth:`facts` when none is pending any more; takes ``resources.probe_timeout`` at most.

        Raises:
          FactUnknownError: the component is not running.
        """
        self._running()
        self._wanted.set()
        await self._round.wait()
        return self.facts()

    async def refresh(self) -> Mapping[str, JsonObject]:
        """Ask everything again and return the facts. Until a new answer is there, the old stands.

        A call during a round waits for that round, so that callers cannot pile up threads.

        Raises:
          FactUnknownError: the component is not running.
        """
        self._running()
        if self._round.is_set():
            self._start_round()
        return await self.wait_facts()

    # The network's mode ------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """The node's network mode now."""
        return self._modes().mode

    def modes(self) -> ModeChanges:
        """To iterate over with ``async for``: the mode as it is, then each time it is another one,
        in name or in being measured. Nothing piles up for who is slow, and nothing is to be closed."""
        from novacron.environment.modes.watch import ModeChanges

        return ModeChanges(self._modes())

    def observe_path(self, measure: PathMeasure) -> None:
        """Take a new measure of a path. May change its mode, and the node's."""
        self._modes().observe(measure, rdma=self.rdma_present())

    def forget_path(self, peer: str) -> None:
        """The path to *peer* is not measured any more. Harmless for one that never was."""
        self._modes().forget(peer)

    def review_modes(self) -> None:
        """Call once in a while: a mode that was held until it had cooled down may change without a
        new measure, and facts about devices may be known now."""
        watch = self._modes()
        self._tell_devices(watch)
        watch.review()

    def path_mode(self, peer: str) -> PathMode | None:
        """The mode of the path to *peer*; None where nothing was told of it."""
        return self._modes().path(peer)

    def mode_is_near(self, peer: str, newest_us: float) -> bool:
        """Whether, with a newest round trip of *newest_us*, the path's mode may be about to change,
        so that measuring more of it is worth a few packets."""
        return self._modes().is_near(peer, newest_us)

    def mode_report(self) -> JsonObject:
        """The node's mode, every path with its measures and scores, and the latest switches."""
        watch = self._modes()
        self._tell_devices(watch)
        watch.review()
        return watch.as_json()

    def rdma_present(self) -> bool | None:
        """Whether this node has an RDMA device; None where that is not known."""
        devices = self._rdma_devices()
        return None if devices is None else bool(devices)

    def _modes(self) -> ModeWatch:
        """Made when it is first asked for: no boot waits for its import."""
        if self._watch is None:
            from novacron.environment.modes.watch import ModeWatch

            self._watch = ModeWatch(self._dwcp)
            self._tell_devices(self._watch)
        return self._watch

    def _tell_devices(self, watch: ModeWatch) -> None:
        if self._facts.get("rdma", PENDING) == PENDING:
            return
        interfaces = self._facts.get("interfaces", PENDING)
        fastest = (
            fastest_bps([each for each in interfaces.value if each["physical"]])
            if interfaces.state == "known"
            else None
        )
        watch.know_devices(self._rdma_devices(), fastest)

    def _rdma_devices(self) -> list[str] | None:
        fact = self._facts.get("rdma", PENDING)
        if fact.state != "known":
            return None
        return [str(device["name"]) for device in fact.value["devices"]]

    async def health_check(self, depth: HealthDepth) -> Health:
        if depth is not HealthDepth.SHALLOW:
            self._tell_native()
        unknown = [name for name, fact in self._facts.items() if fact.state == "unknown"]
        if not unknown:
            return Health(HealthState.HEALTHY, details={"facts": len(self._facts)})
        # Not degraded: a machine that does not tell is a fact too, and nothing serves worse.
        return Health(
            HealthState.HEALTHY,
            f"{len(unknown)} of {len(self._facts)} facts unknown: {', '.join(unknown)}",
            {"facts": len(self._facts), "unknown": unknown},
        )

    def statistics(self) -> Mapping[str, Value]:
        states = [fact.state for fact in self._facts.values()]
        return {
            "facts": {state: states.count(state) for state in ("known", "unknown", "pending")},
            "hanging": self._inquirer.hanging,
            "took_ms": {
                name: fact.took_ms for name, fact in self._facts.items() if fact.took_ms is not None
            },
        }

    def _tell_native(self) -> None:
        """Say once, and before READY, that the compiled part is missing: facts that are unknown for
        that reason are in nobody's way, so nobody would notice."""
        if self._told_native:
            return
        try:
            native()
        except NativeUnavailableError as exc:
            self._told_native = True
            self._view.warn(str(exc))

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise FactUnknownError(
                "the environment cannot be asked",
                why="its component is not running",
                remedy="look at its failure in `novacron status`",
            )
        return self._nursery

    def _start_round(self) -> None:
        nursery = self._running()
        self._round = trio.Event()
        nursery.start_soon(self._ask_all, self._round)

    async def _ask_all(self, done: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, [probe for probe in self.probes if not probe.patient])
            nursery.start_soon(self._ask_late, [probe for probe in self.probes if probe.patient])
        self._log_unknown()
        done.set()

    async def _ask_late(self, probes: list[Probe]) -> None:
        if probes:
            await self._wait_started()
            await self._ask(probes)

    async def _ask(self, probes: list[Probe]) -> None:
        await self._inquirer.ask(probes, self._facts.__setitem__)

    def _log_unknown(self) -> None:
        for name, fact in self._facts.items():
            if fact.state == "unknown":
                logger.info(
                    "the environment fact %s is unknown",
                    name,
                    extra={"fact": name, "reason": fact.reason, "took_ms": fact.took_ms},
                )

    async def _wait_started(self) -> None:
        with trio.move_on_after(PATIENCE):
            while not self._wanted.is_set() and self._view.state is NodeState.STARTING:
                with trio.move_on_after(START_POLL):
                    await self._wanted.wait()

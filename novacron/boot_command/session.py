"""One run of a node as a process: lock, state, engine, signals, outputs."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from novacron.api import prefetch
from novacron.boot import events, exits
from novacron.boot.checkpoint import BootState
from novacron.boot.event_log import log_event
from novacron.boot.events import Event
from novacron.boot.lock import DataDirectoryLock
from novacron.boot.node_view import BootRecord
from novacron.boot.notify import Notifier
from novacron.boot.process_start import ProcessStart, span
from novacron.boot.report import Report
from novacron.boot.report_store import ReportStore
from novacron.boot.view import open_view
from novacron.boot_command.early_report import early_report, write_report
from novacron.component import JsonObject, NodeState
from novacron.config import LoadedConfiguration
from novacron.data_directory import DataDirectory
from novacron.durable import write_atomically
from novacron.environment import Identity
from novacron.errors import BootError
from novacron.log import bind
from novacron.log.early import configure
from novacron.node import Composition, compose, new_boot_id, reload
from novacron.readiness import ReadyFile

_log = logging.getLogger("novacron.boot")


class Session:
    """Call :meth:`run` once."""

    def __init__(
        self,
        args: argparse.Namespace,
        loaded: LoadedConfiguration,
        data: DataDirectory,
        start: ProcessStart,
        prelude: Sequence[JsonObject],
    ) -> None:
        self._args = args
        self._loaded = loaded
        self._data = data
        self._start = start
        self._record = BootRecord(new_boot_id(), os.getpid(), start.wall)
        self._record.prelude = list(prelude)
        self._notifier = Notifier.from_environment()
        system = loaded.settings.system
        configure(system.log_level, system.log_format)
        bind(boot_id=self._record.boot_id)
        self._view = open_view(system.log_format)
        self._store = ReportStore(data, loaded.settings.boot.keep_reports)
        self._composition: Composition | None = None
        self._degraded = False

    def run(self) -> int:
        """Boot, serve, stop. Returns the exit status."""
        try:
            ReadyFile(Path(self._args.ready_file) if self._args.ready_file else None).check()
            lock = DataDirectoryLock(self._data, self._record.boot_id)
            try:
                state = BootState(self._data, self._record.boot_id)
                try:
                    return self._boot(state)
                finally:
                    state.close()
            finally:
                lock.release()
        except BootError as exc:
            # Before the engine runs nothing was entered, so there is nothing to roll back.
            report = early_report(self._record, self._start, exc)
            if self._args.report:
                write_report(Path(self._args.report), report)
            self._publish(events.BootFailed(report["seconds"], report["failure"]))
            return exits.FAILED
        finally:
            self._view.close()
            self._notifier.close()

    def _boot(self, state: BootState) -> int:
        ready_file = Path(self._args.ready_file) if self._args.ready_file else None
        self._composition = compose(
            self._loaded,
            self._data,
            self._record,
            state,
            publish=self._publish,
            save_report=self._save_report,
            elapsed=self._start.elapsed,
            ready_file=ReadyFile(ready_file),
        )
        began = self._start.elapsed()
        # Half of all import time is the REST framework's. Here and not in a thread beside the
        # first phases: the two would only take the interpreter from each other (ADR 60).
        prefetch()
        self._record.prelude += [
            span("composition", self._record.prelude[-1]["end"], began),
            span("libraries", began, self._start.elapsed()),
        ]
        code = trio.run(self._serve)
        # It is over but for closing files: a late signal must not change the exit status.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return self._exit_code(code)

    def _exit_code(self, code: int) -> int:
        """What the process ends with when the engine ended with *code*."""
        if not self._args.exit_when_ready:
            return code
        if self._record.ready_seconds is None:
            return exits.FAILED
        return exits.DEGRADED if code == 0 and self._degraded else code

    async def _serve(self) -> int:
        assert self._composition is not None
        engine = self._composition.engine
        async with trio.open_nursery() as nursery:
            await nursery.start(self._signals)
            nursery.start_soon(self._notifier.run, self._composition.view.alive)
            code = await engine.run()
            nursery.cancel_scope.cancel()
        return code

    async def _signals(self, task_status: trio.TaskStatus[None]) -> None:
        assert self._composition is not None
        engine = self._composition.engine
        stopping = False
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()
            async for number in received:
                name = signal.Signals(number).name
                if number == signal.SIGHUP:
                    await self._reload()
                elif stopping:
                    _log.warning("%s again: the stop is forced", name)
                    engine.request_force()
                else:
                    stopping = True
                    engine.request_stop(name)

    async def _reload(self) -> None:
        assert self._composition is not None
        if self._record.state is not NodeState.READY:
            _log.warning("SIGHUP ignored: the node is not READY")
            return
        self._notifier.reloading()
        await reload(self._composition)
        self._notifier.ready()

    def _publish(self, event: Event) -> None:
        if isinstance(event, events.NodeStopped):
            event = events.NodeStopped(event.at, self._exit_code(event.code))
        self._view.listen(event)
        log_event(event)
        self._notifier.listen(event)
        if isinstance(event, events.NodeStopping | events.RollbackStarted):
            stop = self._loaded.settings.boot.stop
            self._notifier.extend_timeout(stop.drain + stop.cleanup + stop.force)
        if isinstance(event, events.NodeReady):
            self._on_ready(event)
        elif isinstance(event, events.ComponentReady) and event.name == Identity.name:
            self._sign_log()

    def _sign_log(self) -> None:
        """From now on every line says which node it is of."""
        assert self._composition is not None
        identity = self._composition.engine.runtime.units[Identity.name].component
        assert isinstance(identity, Identity)
        bind(node_id=identity.node_id)

    def _on_ready(self, event: events.NodeReady) -> None:
        self._degraded = bool(event.degraded)
        if self._args.modules:
            names = json.dumps(sorted(sys.modules)).encode()
            write_atomically(Path(self._args.modules), names, mode=0o644)
        # What the boot made stays for good: keep the collector from walking it ever again.
        gc.freeze()
        gc.enable()
        if self._args.exit_when_ready:
            assert self._composition is not None
            self._composition.engine.request_stop("--exit-when-ready")

    def _save_report(self, report: JsonObject) -> str | None:
        if self._args.report:
            write_report(Path(self._args.report), report)
        return str(self._store.write(Report(report)))

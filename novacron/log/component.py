"""The logger component: the log file in the data directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from novacron.component import (
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
    ReloadableComponent,
)
from novacron.config.schema import SystemSettings
from novacron.data_directory import DataDirectory
from novacron.log import early, formatters
from novacron.log.writer import LogWriter

if TYPE_CHECKING:
    import trio

log = logging.getLogger("novacron.log")

FILE_NAME = "novacron.log"

OPEN_DEADLINE = 1.0
"""Seconds the boot waits for the file to open. A disk that takes longer is waited for in the
thread; the lines are kept meanwhile."""


class _FileHandler(logging.Handler):
    """Formats in the caller's thread, where the record's arguments still are what they were."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.writer = writer
        self.setFormatter(formatters.JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.writer.put(self.format(record))


class Logger(ReloadableComponent, ObservableComponent):
    """Writes every record to the file as JSON lines, besides standard error.

    No disk can fail the boot here: where the file cannot be written, the node says so and logs to
    standard error alone.
    """

    name: ClassVar[str] = "logger"
    phase: ClassVar[Phase] = Phase.PRE_INIT
    criticality: ClassVar[Criticality] = Criticality.CRITICAL
    reloadable_keys: ClassVar[frozenset[str]] = frozenset({"system.log_level"})

    def __init__(self, settings: SystemSettings, data: DataDirectory, node: NodeView) -> None:
        self.settings = settings
        self.data = data
        self.node = node
        self._writer: LogWriter | None = None
        self._handler: _FileHandler | None = None

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Open the file and hand it what was logged so far."""
        early.set_level(self.settings.log_level)
        formatters.bind(boot_id=self.node.boot_id)
        if not self.settings.log_file:
            early.hand_over(lambda record: None)
            return
        import trio

        token = trio.lowlevel.current_trio_token()
        opened = trio.Event()

        def from_thread(call: Any, *args: Any) -> None:
            try:
                token.run_sync_soon(call, *args)
            except trio.RunFinishedError:
                return  # The node has stopped: nobody is left to tell.

        self._writer = LogWriter(
            self.data.log / FILE_NAME,
            self.settings.log_file_bytes,
            self.settings.log_file_count,
            on_failure=lambda reason: from_thread(self._warn, reason),
            on_open=lambda: from_thread(opened.set),
            notice=_loss_notice,
        )
        self._handler = _FileHandler(self._writer)
        lost = early.hand_over(self._handler.emit)
        logging.getLogger().addHandler(self._handler)
        self._writer.start()
        if lost:
            log.warning("early records did not reach the log file", extra={"lost": lost})
        with trio.move_on_after(OPEN_DEADLINE):
            await opened.wait()

    async def shutdown(self) -> None:
        """Write what is queued, close the file."""
        handler, self._handler = self._handler, None
        writer, self._writer = self._writer, None
        if handler is not None:
            logging.getLogger().removeHandler(handler)
        if writer is not None:
            import trio

            # The thread's own deadline is within stop_timeout: a hung disk costs that, no more.
            await trio.to_thread.run_sync(writer.close, self.stop_timeout / 2)

    async def health_check(self, depth: HealthDepth) -> Health:
        writer = self._writer
        if writer is None or writer.failure is None:
            return Health(HealthState.HEALTHY, details=self.statistics())
        return Health(
            HealthState.DEGRADED,
            f"the log file {writer.path} cannot be written: {writer.failure}; "
            "standard error still gets everything",
            self.statistics(),
        )

    async def reload(self, settings: SystemSettings) -> None:
        """Apply ``system.log_level``."""
        self.settings = settings
        early.set_level(settings.log_level)

    def statistics(self) -> Mapping[str, Any]:
        writer = self._writer
        if writer is None:
            return {"file": None, "dropped": 0}
        return {"file": str(writer.path), "dropped": writer.dropped, "failure": writer.failure}

    def _warn(self, reason: str) -> None:
        path = self.data.log / FILE_NAME
        self.node.warn(
            f"the log file {path} cannot be written ({reason}); logging to standard error alone. "
            "Make it writable for this user, or set system.log_file to false [system.log_file]"
        )


def _loss_notice(lost: int) -> str:
    """A line that says how many are missing, in the file's own format."""
    record = logging.makeLogRecord(
        {
            "name": "novacron.log",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log lines were lost because the file could not keep up",
            "lost": lost,
        }
    )
    return formatters.JsonFormatter().format(record)

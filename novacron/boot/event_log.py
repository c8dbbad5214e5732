"""What the engine tells its listeners, as log records: the view is gone when somebody asks why."""

from __future__ import annotations

import logging

from novacron.boot import events

_log = logging.getLogger("novacron.boot")


def log_event(event: events.Event) -> None:
    """A listener. What the view shows a person at this moment is marked ``shown``."""
    match event:
        case events.ComponentRetry():
            _log.warning(
                "start failed, next attempt in %.1f s: %s",
                event.delay,
                event.error,
                extra={"component": event.name, "attempt": event.attempt, "shown": True},
            )
        case events.ComponentFailed():
            _log.warning(
                "start failed: %s", event.error, extra={"component": event.name, "shown": True}
            )
        case events.ComponentSkipped():
            _log.warning(
                "not started: %s", event.because, extra={"component": event.name, "shown": True}
            )
        case events.RollbackStarted():
            _log.warning("rolling back: %s", event.reason, extra={"shown": True})
        case events.NodeStopping():
            _log.info("stopping: %s", event.reason, extra={"shown": True})
        case events.NodeStopped():
            _log.info("stopped", extra={"exit_code": event.code, "shown": True})

"""Undoing what outlives the process: after a failed boot, a clean stop, or a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from novacron.boot import events
from novacron.boot.checkpoint import BootState, StateWriteError
from novacron.boot.events import Event, describe_error
from novacron.boot.journal import UndoStep
from novacron.boot.registry import Definition
from novacron.component import JsonObject, UndoHandler
from novacron.errors import BootError, ConflictError

_log = logging.getLogger("novacron.boot")

HANDLER_DEADLINE = 30.0
"""Seconds one undo step may take; restoring a database copy is the slowest there is."""


class UndoFailedError(BootError, ConflictError):
    code = "boot.undo_failed"


class JournalledUndoLog:
    """The :class:`novacron.component.UndoLog` of a running node. Disk work is done in threads."""

    def __init__(self, state: BootState) -> None:
        self._state = state

    async def record(
        self, component: str, kind: str, arguments: Mapping[str, Any], *, until_stop: bool = False
    ) -> str:
        """Raises StateWriteError: the step is not on disk, so the effect must not be made."""
        async with self._state.turn:
            try:
                step = await trio.to_thread.run_sync(
                    partial(
                        self._state.journal.owe,
                        component,
                        kind,
                        arguments,
                        until_stop=until_stop,
                    )
                )
            except OSError as exc:
                raise _unwritable(exc) from exc
            return step.id

    async def discharge(self, step: str) -> None:
        async with self._state.turn:
            try:
                await trio.to_thread.run_sync(self._state.journal.clear, step)
            except OSError as exc:
                raise _unwritable(exc) from exc


def _unwritable(exc: OSError) -> StateWriteError:
    return StateWriteError(
        "the undo journal cannot be written",
        why=exc.strerror or str(exc),
        remedy="free some space in the data directory, or make it writable",
        key="system.data_dir",
    )


def handlers_of(definitions: Iterable[Definition]) -> dict[tuple[str, str], UndoHandler]:
    """Handlers by component name and kind."""
    return {
        (definition.name, kind): handler
        for definition in definitions
        for kind, handler in type(definition.component).undo_handlers.items()
    }


async def undo(
    state: BootState,
    steps: Sequence[UndoStep],
    handlers: Mapping[tuple[str, str], UndoHandler],
    publish: Callable[[Event], None],
    at: Callable[[], float],
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Undo *steps*, last recorded first; returns what was undone and what failed.

    A step that failed stays owed. One whose component no longer exists stays owed too: dropping
    it would forget an effect nobody took back.
    """
    undone: list[JsonObject] = []
    failed: list[JsonObject] = []
    for step in reversed(steps):
        entry = {"component": step.component, "kind": step.kind}
        error: Exception | None = None
        handler = handlers.get((step.component, step.kind))
        try:
            if handler is None:
                raise UndoFailedError(
                    f"{step.kind} of {step.component} cannot be undone",
                    why="this version has no such component or step",
                    remedy="boot once with the version that made it",
                )
            with trio.fail_after(HANDLER_DEADLINE):
                await trio.to_thread.run_sync(handler, step.arguments, abandon_on_cancel=True)
            await trio.to_thread.run_sync(state.journal.clear, step.id)
        except Exception as exc:
            error = exc
            failed.append({**entry, **describe_error(exc)})
            _log.error("undo step failed: %s", exc, extra=entry, exc_info=exc)
        else:
            undone.append(entry)
        publish(events.UndoRan(step.component, step.kind, at(), error))
    return undone, failed

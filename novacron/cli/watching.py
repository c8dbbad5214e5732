"""Following transfers until they end, also over a restart of the node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from novacron.cli.client import (
    NodeClient,
    NodeNotRunningError,
    NodeUnreachableError,
    client_for,
)
from novacron.cli.progress import ENDED, Screen, View

if TYPE_CHECKING:
    import argparse

POLL = 0.25
"""Seconds between two looks: a bar moves smoothly, and it is a tenth of what api.rate_limit allows."""

PATIENCE = 120.0
"""Seconds to wait for a node that went away. A boot takes at most ``boot.deadlines.total``, 30 s,
and a service manager pauses before it tries again."""

RETRY = 0.5


class Follower:
    """Asks the node, and asks again when it was away.

    Args:
      say: Gets a sentence when the node goes away and when it is back.
    """

    def __init__(self, args: argparse.Namespace, say: Callable[[str], None]) -> None:
        self._args = args
        self.say = say
        self.client: NodeClient = client_for(args)

    def get(self, path: str) -> Any:
        """The answer to ``GET``, from this run of the node or the next.

        Raises:
          ApiError: it refused, or was away for longer than :data:`PATIENCE` seconds.
        """
        try:
            return self.client.get(path)
        except NodeUnreachableError as exc:
            self.say(f"{exc.what}: {exc.why}; waiting up to {PATIENCE:g} s for it")
        deadline = time.monotonic() + PATIENCE
        while True:
            time.sleep(RETRY)
            try:
                # Anew each time: a node that takes a free port is elsewhere after a restart.
                self.client = client_for(self._args)
                answer = self.client.get(path)
            except (NodeUnreachableError, NodeNotRunningError):
                if time.monotonic() > deadline:
                    raise
            else:
                self.say("the node is back")
                return answer

    def views(self, ids: Sequence[str]) -> list[View]:
        """Of the transfers *ids*; of all under way when there are none."""
        if not ids:
            return list(self.get("transfers?state=active")["transfers"])
        return [self.get(f"transfers/{id}") for id in ids]


def follow(
    follower: Follower,
    ids: Sequence[str],
    screen: Screen,
    each: Callable[[View], None] = lambda view: None,
) -> list[View]:
    """Show the transfers *ids* until all have ended; returns how they ended.

    Without *ids* it is all that are under way now or start before these have ended.

    Args:
      each: Called with every view that differs from the one before.
    """
    last: dict[str, View] = {}
    while True:
        views = follower.views(ids)
        if not ids:
            # Those that left the list of active ones have ended: look at each a last time.
            here = {view["id"] for view in views}
            gone = [id for id, view in last.items() if id not in here and not _ended(view)]
            views += follower.views(gone) if gone else []
        for view in views:
            if last.get(view["id"]) != view:
                last[view["id"]] = view
                each(view)
        screen.show([view for view in last.values() if ids or not _ended(view)])
        if all(_ended(view) for view in last.values()):
            return list(last.values())
        time.sleep(POLL)


def _ended(view: View) -> bool:
    return view["state"] in ENDED

"""The three probes, and what stands in front of the application: ASGI without a framework.

They answer before FastAPI is imported, without authentication, and cost a comparison. They say no
more than a load balancer needs: names of components are for those who may ask for them.
"""

from __future__ import annotations

from novacron.component import NodeState, NodeView
from novacron.http.asgi import AsgiApp, Receive, Scope, Send, respond_json, respond_problem

PROBES = ("/livez", "/readyz", "/startupz")


class Front:
    """Answers the probes itself and hands everything else to ``inner``, once it is there."""

    def __init__(self, node: NodeView) -> None:
        self._node = node
        self.inner: AsgiApp | None = None
        self.draining = False
        """Set when the API stops accepting: not ready, whatever the node says."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] != "http":
            return
        elif scope["path"] in PROBES:
            await self._probe(scope, send)
        elif self.inner is not None:
            await self.inner(scope, receive, send)
        else:
            await respond_problem(
                send,
                503,
                "Service Unavailable",
                "the node is starting; /readyz says when it is ready",
                headers=[(b"retry-after", b"1")],
                code="api.starting",
            )

    async def _probe(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await respond_problem(
                send,
                405,
                "Method Not Allowed",
                "probes are read with GET",
                code="api.method",
                headers=[(b"allow", b"GET, HEAD")],
            )
            return
        passed, state = self.verdict(scope["path"])
        await respond_json(send, 200 if passed else 503, {"state": state})

    def verdict(self, path: str) -> tuple[bool, str]:
        """Whether the probe at *path* passes, and the state it reports."""
        node = self._node
        if path == "/livez":
            return (True, "alive") if node.alive() else (False, "dead")
        state = node.state
        if path == "/startupz":
            # READY was reached once; what became of the node since is the other probes' matter.
            return node.ready_seconds is not None, state.value
        if self.draining:
            return False, NodeState.STOPPING.value
        return state in (NodeState.READY, NodeState.DEGRADED), state.value

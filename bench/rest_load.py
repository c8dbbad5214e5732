"""Calls to a node's REST interface that go on whatever happens, and what became of each."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

CALL_DEADLINE = 10.0
"""Seconds a call may take before it counts as frozen; longer than any deadline of the node's for it,
so that what passes this was really forgotten."""
_PAUSE = 0.02

READS = ("/livez", "/readyz", "/api/v1/status", "/api/v1/health")


class Outcome(NamedTuple):
    path: str
    status: int
    """0: no answer; the connection was refused, reset or silent for :data:`CALL_DEADLINE`."""
    seconds: float
    document: Any
    ended: float = 0.0
    """Of ``time.monotonic()``."""


class Client:
    """One caller with a connection of its own for each call, as a script with curl is."""

    def __init__(self, address: str, token: str = "", *, authority: Path | None = None) -> None:
        """*authority*: PEM file to trust; with it calls are made over TLS."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._token = token
        self._context = None
        if authority is not None:
            self._context = ssl.create_default_context(cafile=str(authority))

    def call(self, method: str, path: str, body: Any = None) -> Outcome:
        began = time.monotonic()
        connection = self._connection()
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        status, document = 0, None
        try:
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            status = answer.status
            document = json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            document = document or repr(exc)
        finally:
            connection.close()
        ended = time.monotonic()
        return Outcome(path, status, ended - began, document, ended)

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=CALL_DEADLINE)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=CALL_DEADLINE, context=self._context
        )


def admin_token(data: Path) -> str:
    return (data / "secrets" / "admin.token").read_text().strip()


class Load:
    """Reads and writes through *client* until left. :attr:`acknowledged` are the ids of tokens whose
    creation was answered with 201."""

    def __init__(self, client: Client, *, writers: int = 2) -> None:
        self._client = client
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self.acknowledged: dict[str, str] = {}
        """Id to secret."""
        self._threads = [threading.Thread(target=self._read)]
        self._threads += [
            threading.Thread(target=self._write, args=(number,)) for number in range(writers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        number = 0
        while not self._stop.wait(_PAUSE):
            self._keep(self._client.call("GET", READS[number % len(READS)]))
            number += 1

    def _write(self, writer: int) -> None:
        number = 0
        while not self._stop.wait(_PAUSE):
            body = {"name": f"load {writer} {number}", "role": "viewer", "ttl": 3600}
            outcome = self._client.call("POST", "/api/v1/tokens", body)
            self._keep(outcome)
            if outcome.status == 201:
                with self._lock:
                    self.acknowledged[outcome.document["id"]] = outcome.document["secret"]
            number += 1

    def _keep(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)

    def first_write(self, since: float) -> float | None:
        """When the first write that ended after *since* was acknowledged (``time.monotonic()``)."""
        with self._lock:
            return next(
                (
                    outcome.ended
                    for outcome in self._outcomes
                    if outcome.ended > since and outcome.status == 201
                ),
                None,
            )

    def take(self) -> list[Outcome]:
        """What happened since the last look."""
        with self._lock:
            taken, self._outcomes = self._outcomes, []
        return taken


def statuses(outcomes: list[Outcome]) -> dict[str, Counter[int]]:
    """How often each path was answered with what."""
    found: dict[str, Counter[int]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.path, Counter())[outcome.status] += 1
    return found


def longest_silence(outcomes: list[Outcome]) -> float:
    """Seconds of the longest time in which a caller's calls were not answered at all."""
    ended = sorted(outcome.ended for outcome in outcomes if outcome.status != 0)
    return max((after - before for before, after in pairwise(ended)), default=0.0)


def slowest(outcomes: list[Outcome]) -> dict[str, float]:
    """Seconds of the slowest call of each path."""
    found: dict[str, float] = {}
    for outcome in outcomes:
        found[outcome.path] = max(found.get(outcome.path, 0.0), outcome.seconds)
    return found

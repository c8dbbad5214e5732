"""A node's data directory, and a REST interface that answers what a test says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from novacron.cli import main
from novacron.data_directory import DataDirectory


class Answers:
    """What the stand-in answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.by_path: dict[str, tuple[int, Any]] = {}
        self.in_turn: dict[str, list[tuple[int, Any]]] = {}
        """Answered before :attr:`by_path`, each once; a body of ``HANG_UP`` closes the connection."""
        self.asked: list[tuple[str, str | None]] = []
        self.posted: list[tuple[str, Any]] = []
        self.deleted: list[str] = []
        self.address = ""


HANG_UP = object()


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests are about; not a word on standard error."""


@pytest.fixture
def rest() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            answers.asked.append((self.path, self.headers.get("Authorization")))
            self.answer()

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            answers.posted.append((self.path, json.loads(content) if content else None))
            self.answer()

        def do_DELETE(self) -> None:
            answers.deleted.append(self.path)
            self.answer()

        def answer(self) -> None:
            turns = answers.in_turn.get(self.path)
            if turns:
                status, body = turns.pop(0)
            else:
                status, body = answers.by_path.get(self.path, (404, {"title": "Not Found"}))
            if body is HANG_UP:
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Nothing: standard error is what the tests look at."""

    server = Server(("127.0.0.1", 0), Handler)
    answers.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield answers
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def node(rest: Answers, data_directory: DataDirectory) -> DataDirectory:
    """The data directory of a node that runs (as this process) and serves *rest*."""
    data_directory.run.mkdir()
    data_directory.secrets.mkdir()
    write_node(data_directory, os.getpid(), rest.address)
    (data_directory.secrets / "admin.token").write_text("nct_1_planted\n")
    return data_directory


def write_node(data: DataDirectory, pid: int, address: str) -> None:
    content = {"pid": pid, "boot_id": "b", "addresses": {"rest": address}}
    (data.run / "node.json").write_text(json.dumps(content))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call

"""GridFTP as a peer: files over several parallel TCP streams, as science moves them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bench.file_peers import Move, same_bytes
from bench.harness import BenchError
from bench.processes import Measured, first_line, program

_SERVER = ("globus-gridftp-server", "globus-gridftp-server-progs")
_CLIENT = ("globus-url-copy", "globus-gass-copy-progs")
_START_SECONDS = 30.0
_BLOCK_BYTES = 1024**2


def version() -> str:
    server = first_line([program(*_SERVER), "-version"])
    return f"{server}, {first_line([program(*_CLIENT), '-version'])}"


def move(source: Path, target: Path, *, streams: int, timeout: float = 300.0) -> Move:
    """Let a server on the loopback send *source* to a client that writes it to *target*, over
    *streams* parallel connections, without encryption or checksums.

    The server maps nobody to root: started by root it serves as ``nobody``, who must be able to
    read *source*. The time is the client's whole life, connecting included; the bytes are compared
    afterwards.

    Raises:
      BenchError: a program is missing, failed, took more than *timeout* seconds or changed bytes.
    """
    as_nobody = ["-anonymous-user", "nobody"] if os.geteuid() == 0 else []
    served = [program(*_SERVER), "-aa", *as_nobody, "-p", "0", "-c", os.devnull]
    # -1: it ends after the one connection, so that its whole CPU time can be asked for.
    served += ["-control-interface", "127.0.0.1", "-data-interface", "127.0.0.1"]
    served += ["-no-detach", "-1"]
    with Measured(served) as server:
        said = server.wait_output("\n", _START_SECONDS)
        port = re.search(r"listening at \S+:(\d+)", said)
        if port is None:
            raise BenchError(f"the GridFTP server named no port: {said}")
        copied = [program(*_CLIENT), "-p", str(streams), "-bs", str(_BLOCK_BYTES)]
        copied += [f"ftp://127.0.0.1:{port[1]}{source.resolve()}", f"file://{target.resolve()}"]
        with Measured(copied) as client:
            received = client.wait(timeout)
        sent = server.wait(_START_SECONDS)
    same_bytes(source, target, "globus-url-copy")
    return Move.of(source, received.seconds, received.cpu_seconds + sent.cpu_seconds)

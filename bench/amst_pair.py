"""Two worker processes with a link between them, and what one transfer over it took."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.harness import ROOT, BenchError, child_environment, python
from bench.processes import GIB

SHARED_MEMORY = Path("/dev/shm")
CHUNK_BYTES = 1 << 20
WINDOW_BYTES = 64 << 20
"""Both are what a node has by default."""
START_TIMEOUT = 60.0
"""For everything before a measurement; pages of a few GiB have to be made."""
_RANDOM_BYTES = 16 << 20


def threads() -> int:
    """As many as a node has by default."""
    return min(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class Setup:
    """How a link is made."""

    encrypt: bool = True
    streams: int = 1
    adaptive: bool = False
    threads: int = 2
    chunk_bytes: int = CHUNK_BYTES
    window_bytes: int = WINDOW_BYTES
    congestion: str = "auto"
    """``auto`` is the node's own choice for where the other end is."""
    protocol: int = 3
    certificate: str = ""
    """File with a certificate and its key, for protocol 1."""


@dataclass(frozen=True, slots=True)
class Transfer:
    size: int
    seconds: float
    """From the start of sending until everything was acknowledged and written."""
    sender_cpu_seconds: float
    receiver_cpu_seconds: float
    congestion: str
    durable_seconds: float | None = None
    """The same, until the file was durable and had its name."""
    tail_seconds: float | None = None
    """What the last hundredth of the bytes took, at most: a chunk counts when all of it is there.
    None where it was not asked for."""

    @property
    def gbps(self) -> float:
        return self.size * 8 / 1e9 / self.seconds

    @property
    def cpu_s_per_gib(self) -> float:
        return (self.sender_cpu_seconds + self.receiver_cpu_seconds) / (self.size / GIB)


class Worker:
    """A process that runs :mod:`bench.amst_worker`, or another *module* that is asked in the same
    way; a context manager whose end is the process's."""

    def __init__(
        self, name: str, prefix: Sequence[str] = (), module: str = "bench.amst_worker"
    ) -> None:
        self.name = name
        self._said = b""
        # A file takes what a pipe nobody reads would make the subject wait for.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._process = subprocess.Popen(
            [*prefix, *python("-m", module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            cwd=ROOT,
            env=child_environment(),
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            pipe.close()

    def ask(self, do: str, **request: Any) -> None:
        """Without waiting for the answer, which :meth:`answer` gives; one at a time."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
        except BrokenPipeError:
            raise self._failed("has ended") from None

    def answer(self, timeout: float) -> dict[str, Any]:
        """Raises BenchError where there is none within *timeout* seconds."""
        assert self._process.stdout is not None
        give_up = time.monotonic() + timeout
        while b"\n" not in self._said:
            left = max(0.0, give_up - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise self._failed(f"did not answer within {timeout:g} s")
            data = self._process.stdout.read(1 << 16)
            if not data:
                raise self._failed("has ended")
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, do: str, timeout: float = START_TIMEOUT, **request: Any) -> dict[str, Any]:
        self.ask(do, **request)
        return self.answer(timeout)

    def _failed(self, what: str) -> BenchError:
        words = os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace")
        return BenchError(f"the AMST {self.name} {what}:\n{words[-2000:]}")


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a link whose connections are made."""

    setup: Setup
    size: int
    sender: Worker
    receiver: Worker
    congestion: str
    """What the sender's connections use."""


@contextlib.contextmanager
def joined(
    setup: Setup,
    source: Path,
    target: Path,
    *,
    size: int | None = None,
    mapped: bool = True,
    host: str = "127.0.0.1",
    sender_prefix: Sequence[str] = (),
    receiver_prefix: Sequence[str] = (),
) -> Iterator[Ends]:
    """Two fresh processes and a link from *source* to *target*, which is made anew, both as mapped
    memory (whose pages are there) or as descriptors. The prefixes start them in other namespaces;
    *host* is the receiver's address there.

    Raises:
      BenchError: a worker failed or did not answer.
    """
    size = source.stat().st_size if size is None else size
    common = {
        "size": size,
        "mapped": mapped,
        "host": host,
        "protocol": setup.protocol,
        "certificate": setup.certificate,
        "encrypt": setup.encrypt,
        "threads": setup.threads,
        "chunk_bytes": setup.chunk_bytes,
        "window_bytes": setup.window_bytes,
        "congestion": setup.congestion,
        "link": secrets.token_hex(16),
        "secret": secrets.token_hex(32),
    }
    with Worker("receiver", receiver_prefix) as receiver, Worker("sender", sender_prefix) as sender:
        receiver.ask("open", role="receiver", path=str(target), **common)
        sender.ask("open", role="sender", path=str(source), **common)
        port = receiver.answer(START_TIMEOUT)["port"]
        sender.answer(START_TIMEOUT)
        made = sender.do("connect", port=port, streams=setup.streams, adaptive=setup.adaptive)
        yield Ends(setup, size, sender, receiver, made["congestion"])


def transfer(
    ends: Ends,
    source: Path,
    *,
    timeout: float = 300.0,
    rename: Path | None = None,
    interval: float = 0.0,
) -> Transfer:
    """Move everything once, and compare what arrived, outside of what is timed. With *interval* the
    sender looks every so many seconds how far it is, for ``tail_seconds``.

    Raises:
      BenchError: it took more than *timeout* seconds, or bytes were changed.
    """
    ends.receiver.do("expect")
    ends.receiver.ask("finish", within=timeout, rename=None if rename is None else str(rename))
    ends.sender.ask("send", within=timeout, interval=interval)
    sent = ends.sender.answer(timeout + 1)
    received = ends.receiver.answer(timeout + 1)
    if not ends.receiver.do("compare", timeout, path=str(source))["same"]:
        raise BenchError(f"AMST changed bytes: what was received differs from {source}")
    durable = received.get("durable")
    early = [moment for moment, done in sent["moments"] if done < 0.99 * ends.size]
    end = max(sent["ended"], received["ended"])
    return Transfer(
        size=ends.size,
        seconds=end - sent["began"],
        sender_cpu_seconds=sent["cpu_seconds"],
        receiver_cpu_seconds=received["cpu_seconds"],
        congestion=ends.congestion,
        durable_seconds=None if durable is None else max(durable, end) - sent["began"],
        tail_seconds=end - max(early, default=sent["began"]) if interval else None,
    )


def write_random(path: Path, size: int) -> None:
    """A file that everybody may read, of bytes that nothing compresses and no two blocks share."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, _RANDOM_BYTES)))
    path.chmod(0o644)


def write_certificate(path: Path) -> None:
    """A certificate that signed itself, and its key: both ends show it and trust it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def parse_size(words: str) -> int:
    """``2G``, ``256M``, ``64K`` or a number of bytes.

    Raises:
      BenchError: it is none of these.
    """
    factors = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    digits, factor = words, 1
    if words[-1:].upper() in factors:
        digits, factor = words[:-1], factors[words[-1].upper()]
    if not digits.isascii() or not digits.isdigit() or int(digits) == 0:
        raise BenchError(f"{words!r} is not a size such as 2G, 256M or 65536")
    return int(digits) * factor


def parse_counts(words: str, what: str) -> tuple[int, ...]:
    """Positive numbers with commas between them.

    Raises:
      BenchError: it is something else.
    """
    try:
        found = tuple(int(word) for word in words.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise BenchError(f"{what} must be positive numbers with commas between them, not {words!r}")
    return found

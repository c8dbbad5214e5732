"""A private PostgreSQL on a free port of the loopback, from Debian's package.

    with PostgreSQL() as server:
        connect(server.dsn())
        server.kill(); server.start()

PostgreSQL refuses to run as root; then it runs as ``postgres``, or ``nobody`` where there is no such
user. Its files lie in a temporary directory of its own. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.authority import Authority
from bench.harness import BenchError, child_environment
from bench.processes import free_port

USER = "novacron"
DATABASE = "novacron"
_DEADLINE = 60.0
_POLL_SECONDS = 0.02
_INSTALLED = Path("/usr/lib/postgresql")


def program(name: str) -> Path:
    """Where PostgreSQL's program *name* is: Debian keeps one directory a version, none on PATH.

    Raises:
      BenchError: it is not installed.
    """
    versions = sorted(
        (path for path in _INSTALLED.glob("*/bin") if (path / name).exists()),
        key=lambda path: int(path.parent.name),
    )
    if versions:
        return versions[-1] / name
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is not installed (Debian: apt-get install postgresql)")
    return Path(found)


class PostgreSQL:
    """A server as a context manager. :attr:`port` stays the same over restarts.

    Args:
      settings: of ``postgresql.conf``, in the server's own spelling.
      directory: where to lie instead of a temporary directory; it stays then. Everyone on the way
        to it must be allowed to pass.
      durable: whether it waits for the disk (fsync); off, it is only as durable as its process.
      authority: whose server certificate it shows; a new one by default.
      names: host names and addresses the certificate is valid for.
      standby_of: a running server whose read-only copy this one is; it follows until
        :meth:`promote`.
      through: port of a proxy by way of which it follows; the server's own by default.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
        durable: bool = True,
        authority: Authority | None = None,
        names: Iterable[str] = ("localhost", "127.0.0.1"),
        standby_of: PostgreSQL | None = None,
        through: int | None = None,
    ) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.password = "a password of the tests"
        self._standby_of = standby_of
        if authority is None:
            authority = Authority() if standby_of is None else standby_of.authority
        self.authority: Authority = authority
        self._own_directory = directory is None
        self._user = _user()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="novacron-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self.data = self.directory / "data"
        self.ca = self.directory / "ca.pem"
        try:
            self._make(dict(settings or {}), durable, through)
            self.certify(names)
        except BaseException:
            self._remove()
            raise

    # --- Making it -------------------------------------------------------------------------------

    def _make(self, settings: dict[str, str], durable: bool, through: int | None) -> None:
        self.directory.chmod(0o755)
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        self.write(self.ca, self.authority.certificate)
        if self._standby_of is None:
            secret = self.directory / "password"
            self.write(secret, self.password.encode())
            self._run(
                "initdb",
                *("--pgdata", str(self.data), "--username", USER, f"--pwfile={secret}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
            )
        else:
            self._run(
                "pg_basebackup",
                *("--pgdata", str(self.data)),
                *("--dbname", self._standby_of.dsn(ca=self.ca, port=through)),
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
                PGPASSWORD=self.password,
            )
        chosen = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": f"'{self.directory}'",
            "ssl": "on",
            "ssl_cert_file": f"'{self.directory}/server.pem'",
            "ssl_key_file": f"'{self.directory}/server.key'",
            "ssl_ca_file": f"'{self.ca}'",
            "shared_buffers": "32MB",
            "fsync": "on" if durable else "off",
            "log_min_messages": "warning",
            "max_wal_senders": "4",
            "wal_level": "replica",
            "autovacuum_naptime": "1h",
        } | settings
        lines = "".join(f"{name} = {value}\n" for name, value in chosen.items())
        path = self.data / "postgresql.conf"
        self._configuration = path.read_bytes() + lines.encode()
        self.write(path, self._configuration)

    def certify(self, names: Iterable[str], *, days: float = 1.0) -> None:
        """A new certificate for the server, valid for *days* from now (negative: expired). A running
        server takes it at :meth:`reload`."""
        certificate, key = self.authority.issue_names(names, days=days)
        self.write(self.directory / "server.pem", certificate)
        self.write(self.directory / "server.key", key)

    def certify_user(self, user: str) -> tuple[Path, Path]:
        """A certificate and its key for a client that logs in as *user* (``cert`` in
        :meth:`allow`)."""
        certificate, key = self.authority.issue_names([], common_name=user)
        paths = self.directory / f"{user}.pem", self.directory / f"{user}.key"
        paths[0].write_bytes(certificate)
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(key)
        return paths

    def allow(self, *lines: str) -> None:
        """Replace ``pg_hba.conf``; taken at :meth:`reload`."""
        self.write(self.data / "pg_hba.conf", "".join(f"{line}\n" for line in lines).encode())

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(0o600)
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    # --- Running it ------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BenchError("PostgreSQL is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it on the data that are there; with *wait*, return when it takes connections.

        Raises:
          BenchError: it does not start.
        """
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(program("postgres")), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(HOME=str(self.directory)),
                cwd=self.directory,
                start_new_session=True,
                user=None if self._user is None else self._user.pw_uid,
                group=None if self._user is None else self._user.pw_gid,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        ready = [str(program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        give_up = time.monotonic() + _DEADLINE
        while subprocess.run(ready, check=False, timeout=_DEADLINE).returncode != 0:
            if not self.running or time.monotonic() > give_up:
                raise BenchError(f"PostgreSQL did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End sessions and stop, everything written (a fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to every process of it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._paused:
            self._signal(process.pid, signal.SIGCONT)
            self._paused = False
        family = _family(process.pid)
        if number is signal.SIGKILL:
            self._signal(process.pid, number)
        else:
            process.send_signal(number)
        try:
            process.wait(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            self._signal(process.pid, signal.SIGKILL)
            process.wait()
        _wait_gone(family)
        # What was killed leaves its lock, and shared memory that the next start takes over.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def pause(self) -> None:
        """SIGSTOP to every process of it."""
        self._signal(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        self._signal(self.pid, signal.SIGCONT)
        self._paused = False

    def _signal(self, pid: int, number: signal.Signals) -> None:
        for process in _family(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def promote(self) -> None:
        """Make a standby a server of its own; returns when it takes changes.

        Raises:
          BenchError: it is none, or does not run.
        """
        self._run("pg_ctl", "promote", "--pgdata", str(self.data), "--wait", "--silent")

    def follow(self, primary: PostgreSQL, *, through: int | None = None) -> None:
        """Make this one, which has ended, a standby of *primary*, a former standby of its own: what it
        wrote that the other never got is undone (``pg_rewind``). :meth:`start` it afterwards.

        Raises:
          BenchError: the two have no common past, or no way back to it is kept.
        """
        # Until its first checkpoint a server that was promoted says that it is on the old timeline
        # (before PostgreSQL 16), and nothing would be undone.
        primary.psql("CHECKPOINT", database="postgres")
        self._run(
            "pg_rewind",
            *("--target-pgdata", str(self.data), "--write-recovery-conf", "--no-sync"),
            *("--source-server", primary.dsn(ca=self.ca, port=through, database="postgres")),
            PGPASSWORD=self.password,
        )
        # It has copied the other's, port and all.
        self.write(self.data / "postgresql.conf", self._configuration)

    def set(self, name: str, value: str) -> None:
        """A setting for this and all later starts, taken at once where it can be.

        Raises:
          BenchError: it takes no statements, or not this setting.
        """
        self.psql(f"ALTER SYSTEM SET {name} = '{value}'", database="postgres")
        self.reload()

    def set_at_rest(self, name: str, value: str) -> None:
        """The same for a server that does not run."""
        path = self.data / "postgresql.auto.conf"
        self.write(path, path.read_bytes() + f"{name} = '{value}'\n".encode())

    def reload(self) -> None:
        """Have it read its configuration and certificates again."""
        os.kill(self.pid, signal.SIGHUP)

    # --- Using it --------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    def dsn(
        self,
        *,
        user: str = USER,
        database: str = DATABASE,
        host: str = "127.0.0.1",
        ca: Path | None = None,
        port: int | None = None,
    ) -> str:
        """For a client with TLS and verified names, without the password."""
        return (
            f"host={host} port={port or self.port} dbname={database} user={user}"
            f" sslmode=verify-full sslrootcert={ca or self.ca}"
        )

    def psql(self, sql: str, *, database: str = DATABASE) -> str:
        """Run *sql* as the superuser; what it prints, one row a line, columns by ``|``.

        Raises:
          BenchError: the server refuses it.
        """
        command = [str(program("psql")), self.dsn(database=database), "-qAtX"]
        result = subprocess.run(
            [*command, "-v", "ON_ERROR_STOP=1", "-c", sql],
            env=child_environment(PGPASSWORD=self.password),
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
        if result.returncode != 0:
            raise BenchError(f"psql: {result.stderr.strip()}")
        return result.stdout.strip()

    def create_database(self, name: str = DATABASE) -> None:
        """A new empty database *name*; one that is there is dropped."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', database="postgres")
        self.psql(f'CREATE DATABASE "{name}"', database="postgres")

    # --- Parts -----------------------------------------------------------------------------------

    def _run(self, name: str, *arguments: str, **variables: str) -> None:
        result = subprocess.run(
            [str(program(name)), *arguments],
            # Not the home of whoever started this: its files are not the other user's to read.
            env=child_environment(HOME=str(self.directory), **variables),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
            user=None if self._user is None else self._user.pw_uid,
            group=None if self._user is None else self._user.pw_gid,
        )
        if result.returncode != 0:
            raise BenchError(f"{name} failed:\n{result.stderr[-2000:]}")

    def _remove(self) -> None:
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
            if self._standby_of is None:
                self.psql(f'CREATE DATABASE "{DATABASE}"', database="postgres")
        except BaseException:
            self.kill()
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._remove()


def _user() -> pwd.struct_passwd | None:
    """Who it runs as; None: as this process."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise BenchError("PostgreSQL does not run as root, and there is no other user here")


def _family(postmaster: int) -> list[int]:
    """The first process, itself first, so that it starts no more, and its children: each of them
    makes a session of its own, and none has children."""
    found = [postmaster]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name in the second field may hold spaces and parentheses.
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == postmaster:
                found.append(int(entry.name))
    return found


def _wait_gone(processes: Iterable[int]) -> None:
    """What was orphaned by a kill is reaped by somebody else: its shared memory and its port are
    free when it is no more, or but a zombie."""
    give_up = time.monotonic() + _DEADLINE
    for process in processes:
        while _lives(process):
            if time.monotonic() > give_up:
                raise BenchError(f"process {process} of PostgreSQL does not end")
            time.sleep(_POLL_SECONDS)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")

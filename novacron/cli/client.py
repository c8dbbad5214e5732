"""Asks the running node over its REST interface."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.data_directory import DataDirectory
from novacron.errors import (
    ApiError,
    DeniedError,
    InvalidError,
    NotFoundError,
    RemoteProtocolError,
    TransientError,
    UnavailableError,
)

if TYPE_CHECKING:
    import argparse
    import http.client

    from novacron.config import LoadedConfiguration

DEADLINE = 10.0
"""Seconds for one answer; a full health check takes up to five."""

CHANGE_DEADLINE = 35.0
"""Seconds for the answer to a change, for which the node may have to reach another one first:
``api.request_timeout`` and a little."""

_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""
MAX_ANSWER = 16 * 1024 * 1024
"""Bytes. The longest honest answer, a boot report of a large node, is far below."""


class NodeNotRunningError(ApiError, UnavailableError):
    """No node runs on this data directory."""

    code = "cli.not_running"


class NodeUnreachableError(ApiError, TransientError):
    """The node does not answer."""

    code = "cli.unreachable"


class NodeDeniedError(ApiError, DeniedError):
    """The node does not let this caller in."""

    code = "cli.denied"


class NodeAnswerError(ApiError, RemoteProtocolError):
    """The node answers what this command does not understand."""

    code = "cli.answer"


class NodeRefusedError(ApiError, InvalidError):
    """The node answered with an error."""

    code = "cli.refused"


class NodeLacksError(ApiError, NotFoundError):
    """The node has no such resource."""

    code = "cli.not_found"


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the options that say which node to ask and as whom, and how to print."""
    group = add_address_options(parser)
    group.add_argument("--json", action="store_true", help="print the answer as JSON")


def add_address_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Those that say which node to ask and as whom."""
    group = parser.add_argument_group("node")
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="REST interface to ask, instead of the node of the data directory; a https:// or "
        "http:// before it decides about TLS",
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the API token, instead of secrets/admin.token in the data directory",
    )
    group.add_argument(
        "--ca-file",
        metavar="FILE",
        help="PEM file of the authority that issued the node's certificate, instead of pki/ca.pem",
    )
    return group


class NodeClient:
    """One node's REST interface. Each call opens a connection and closes it."""

    def __init__(self, address: str, token: str | None, ca_file: Path | None, *, tls: bool) -> None:
        self.address = address
        self.ca_file = ca_file
        self.tls = tls
        self._token = token

    def get(self, path: str) -> Any:
        """The JSON answer to ``GET /api/v1/<path>``.

        Raises:
          ApiError: not reachable, not allowed, refused, or not understood.
        """
        return self._call("GET", path, None, f"the node refused to answer {path}")

    def post(self, path: str, content: Any, doing: str) -> Any:
        """The JSON answer to ``POST /api/v1/<path>`` with *content* as its body, None for none.

        *doing* completes "the node refused to", for whoever reads the error.

        Raises:
          ApiError: as :meth:`get`. The node may have done it, if it was lost while it answered.
        """
        body = b"" if content is None else json.dumps(content).encode()
        return self._call("POST", path, body, f"the node refused to {doing}")

    def delete(self, path: str, doing: str) -> Any:
        """The JSON answer to ``DELETE /api/v1/<path>``; *doing* as for :meth:`post`.

        Raises:
          ApiError: as :meth:`post`.
        """
        return self._call("DELETE", path, b"", f"the node refused to {doing}")

    def _call(self, method: str, path: str, content: bytes | None, refused: str) -> Any:
        status, body = self._request(method, f"/api/v1/{path}", content)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise NodeAnswerError(
                f"cannot understand the answer of {self.address}",
                why=f"status {status}, and the body is not JSON",
                remedy="check that --address names a NovaCron node's REST interface",
            ) from exc
        if status >= 400:
            raise self._refusal(refused, status, answer if isinstance(answer, dict) else {})
        return answer

    def _refusal(self, what: str, status: int, problem: dict[str, Any]) -> ApiError:
        """What a problem document (RFC 9457) says, as an error."""
        why = str(problem.get("detail") or problem.get("title") or f"status {status}")
        remedy, key = str(problem.get("remedy") or ""), str(problem.get("key") or "")
        if status in (401, 403):
            return NodeDeniedError(
                what,
                why=why,
                remedy=remedy
                or "name a file with a valid token with --token-file, or run as the node's user",
                key=key,
            )
        if status == 404:
            return NodeLacksError(
                what, why=why, remedy=remedy or "check the node's version", key=key
            )
        if status in (429, 503):
            return NodeUnreachableError(what, why=why, remedy=remedy or "try again later", key=key)
        return NodeRefusedError(what, why=why, remedy=remedy or "see the node's log", key=key)

    def _request(self, method: str, target: str, content: bytes | None) -> tuple[int, bytes]:
        import http.client
        import ssl

        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if content:
            headers["Content-Type"] = "application/json"
        connection = self._connection(DEADLINE if method == "GET" else CHANGE_DEADLINE)
        try:
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER + 1)
            if len(body) > MAX_ANSWER:
                raise NodeAnswerError(
                    f"cannot take the answer of {self.address}",
                    why=f"it is longer than {MAX_ANSWER} bytes",
                    remedy="check that --address names a NovaCron node's REST interface",
                )
            return answer.status, body
        except ssl.SSLError as exc:
            raise NodeUnreachableError(
                f"cannot make a TLS connection to {self.address}",
                why=getattr(exc, "verify_message", "") or exc.reason or str(exc),
                remedy="look at its certificate on its machine with `novacron certificate show`; see "
                "the runbook expired-certificate"
                if getattr(exc, "verify_code", 0) == _EXPIRED
                else "check --ca-file, and that the address is one the certificate names",
            ) from exc
        except http.client.RemoteDisconnected as exc:
            raise NodeUnreachableError(
                f"the node at {self.address} hung up",
                why="it closed the connection instead of answering"
                + ("" if self.tls else ", as one does that speaks TLS only"),
                remedy="look at its log"
                if self.tls
                else f"use --address https://{self.address}, or the node's own --config",
                key="" if self.tls else "api.tls",
            ) from exc
        except TimeoutError as exc:
            raise NodeUnreachableError(
                f"the node at {self.address} does not answer",
                why=f"nothing came within {connection.timeout:g} s",
                remedy="look at its log; `--address` asks another node",
            ) from exc
        except (OSError, UnicodeError) as exc:
            # The latter: a part of the name is empty or too long, and was not even looked up.
            raise NodeUnreachableError(
                f"cannot reach the node at {self.address}",
                why=(exc.strerror or str(exc))
                if isinstance(exc, OSError)
                else "it is no host name",
                remedy="check that it runs, or name its REST interface with --address",
            ) from exc
        except http.client.HTTPException as exc:
            raise NodeAnswerError(
                f"cannot understand the answer of {self.address}",
                why=f"it is not HTTP ({type(exc).__name__})",
                remedy="check that --address names a NovaCron node's REST interface, and its TLS",
            ) from exc
        finally:
            connection.close()

    def _connection(self, deadline: float) -> http.client.HTTPConnection:
        import http.client

        host, port = split_address(self.address)
        if not self.tls:
            return http.client.HTTPConnection(host, port, timeout=deadline)
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise NodeUnreachableError(
                f"cannot use the authority's certificate {self.ca_file}",
                why=getattr(exc, "strerror", None) or "it is not a PEM certificate",
                remedy="name the right file with --ca-file",
            ) from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return http.client.HTTPSConnection(host, port, timeout=deadline, context=context)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``.

    Raises:
      NodeRefusedError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise NodeRefusedError(
            f"cannot use the address {address}",
            why="it is not HOST:PORT",
            remedy="write it like 127.0.0.1:7400 or [::1]:7400",
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def client_for(args: argparse.Namespace) -> NodeClient:
    """The client that the options in *args* describe.

    Raises:
      NodeNotRunningError: no address was given and no node runs on the data directory.
      ConfigInvalidError: as :func:`novacron.config.load`.
    """
    from novacron.config import data_directory_for
    from novacron.config.options import load_from

    loaded = load_from(args)
    data = data_directory_for(loaded.settings)
    given: str | None = args.address
    scheme, separator, rest = given.partition("://") if given else ("", "", "")
    address = (rest.rstrip("/") if separator else given) or running_address(data)
    host, _ = split_address(address)
    tls = scheme == "https" if separator else _expects_tls(loaded, host)
    ca_file = Path(args.ca_file) if args.ca_file else _authority(loaded, data)
    return NodeClient(address, read_token(args.token_file, data), ca_file, tls=tls)


def _expects_tls(loaded: LoadedConfiguration, host: str) -> bool:
    setting = loaded.settings.api.tls
    return setting == "on" or (setting == "auto" and not is_loopback(host))


def _authority(loaded: LoadedConfiguration, data: DataDirectory) -> Path:
    outside = loaded.settings.security.ca_certificate
    return Path(outside) if outside else data.pki / "ca.pem"


def running_address(data: DataDirectory) -> str:
    """Where the node of *data* serves REST.

    Raises:
      NodeNotRunningError: none runs there, or it does not serve yet.
    """
    path = data.run / "node.json"
    try:
        node = json.loads(path.read_bytes())
        address, pid = node["addresses"]["rest"], int(node["pid"])
    except FileNotFoundError as exc:
        raise NodeNotRunningError(
            "no node is running",
            why=f"{path} does not exist",
            remedy="start one with `novacron boot`, name its data directory with --data-dir, or ask "
            "another one with --address",
            key="system.data_dir",
        ) from exc
    except PermissionError as exc:
        raise NodeDeniedError(
            "cannot find the running node",
            why=f"permission to read {path} is denied",
            remedy="run this as the node's user, or use --address and --token-file",
        ) from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise NodeNotRunningError(
            "cannot find the running node",
            why=f"{path} does not tell its address",
            remedy="wait until the node is READY, or use --address",
        ) from exc
    if not _runs(pid, path):
        raise NodeNotRunningError(
            "no node is running",
            why=f"{path} was left behind by process {pid}, which is gone",
            remedy="start one with `novacron boot`; its log says why the last one ended",
        )
    return str(address)


def _runs(pid: int, path: Path) -> bool:
    """Whether process *pid* is there and may be the one that wrote *path*. Its number goes to others
    once it is gone: somebody who waits for that, and listens where the node did, must not be shown
    the administrator's token."""
    writer = _owner(path)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        if writer == os.geteuid():
            return False  # A process of our own would let us.
    # None: hidden from this user (hidepid of proc(5)), who cannot read the token either. Root's are
    # those that the kernel protects; what root wants it has.
    return _owner(Path(f"/proc/{pid}")) in (writer, 0, None)


def _owner(path: Path) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def read_token(file: str | None, data: DataDirectory) -> str | None:
    """The token in *file*, or the local administrator's; None when the latter is not there.

    Raises:
      NodeDeniedError: the file cannot be read.
    """
    path = Path(file) if file else data.secrets / "admin.token"
    try:
        token = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as exc:
        if file is None:
            return None
        raise NodeDeniedError(
            f"cannot read the token file {path}",
            why=exc.strerror or "it cannot be read",
            remedy="name a file that holds an API token with --token-file",
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise NodeDeniedError(
            f"cannot read the token file {path}",
            why="it does not hold a token",
            remedy="name a file that holds an API token with --token-file",
        ) from exc
    if not token.isprintable() or " " in token:
        raise NodeDeniedError(
            f"cannot use the token file {path}",
            why="it holds more than one line",
            remedy="write the token alone into it",
        )
    return token or None

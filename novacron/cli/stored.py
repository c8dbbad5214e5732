"""What a node keeps, for the commands that work on it without the node."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from novacron.cli.manual import Formatter, manual
from novacron.config.options import add_configuration_options
from novacron.errors import DeniedError, InvalidError, NotFoundError, SecurityError

if TYPE_CHECKING:
    from novacron.config.schema import Settings
    from novacron.data_directory import DataDirectory
    from novacron.security.audit import AuditLog
    from novacron.security.keyring import Keyring
    from novacron.security.module_options import ModuleOptions

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class NoNodeError(SecurityError, NotFoundError):
    """The directory is not a node's."""

    code = "cli.no_node"


class WrongUserError(SecurityError, DeniedError):
    """The files would belong to somebody the node is not."""

    code = "cli.wrong_user"


class ArgumentError(SecurityError, InvalidError):
    """An argument that the parser could not judge makes no sense."""

    code = "cli.argument"


def add_action(
    actions: Subparsers,
    name: str,
    help: str,
    description: str,
    examples: Sequence[tuple[str, str]],
    exit_codes: dict[str, str] | None = None,
) -> argparse.ArgumentParser:
    """One action of a command, with the options they all take."""
    parser = actions.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=Formatter,
        epilog=manual(examples=examples, exit_codes=exit_codes),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_configuration_options(parser)
    return parser


class StoredNode:
    """A node's data directory and the settings that say how to read it."""

    def __init__(self, args: argparse.Namespace, *, change: bool) -> None:
        """
        Args:
          change: The command will write.

        Raises:
          NoNodeError: no node has booted there.
          WrongUserError: with *change*, and the directory is another user's.
        """
        from novacron.config import data_directory_for
        from novacron.config.options import load_from

        self.settings: Settings = load_from(args).settings
        self.directory: DataDirectory = data_directory_for(self.settings)
        root = self.directory.root
        try:
            owner = os.stat(self.directory.secrets).st_uid
        except PermissionError as exc:
            raise WrongUserError(
                f"cannot look into {root}",
                why="permission denied",
                remedy="run this as the node's user",
                key="system.data_dir",
            ) from exc
        except OSError as exc:
            raise NoNodeError(
                f"cannot find a node in {root}",
                why="no node has booted on this data directory",
                remedy="name the node's with --data-dir, or start the node once",
                key="system.data_dir",
            ) from exc
        if change and owner != os.geteuid():
            raise WrongUserError(
                f"refusing to write to {root}",
                why=f"it belongs to user {owner}, who could not read what user {os.geteuid()} "
                "writes",
                remedy=f"run this as the node's user: sudo -u '#{owner}' novacron …",
                key="system.data_dir",
            )

    def audit(self) -> AuditLog:
        from novacron.security.audit import AuditLog

        settings = self.settings.security
        return AuditLog(
            self.directory,
            settings.audit_max_bytes,
            settings.audit_on_failure,
            keep_files=settings.audit_keep_files,
            keep_days=settings.audit_keep_days,
        )

    def keyring(self) -> Keyring:
        """The open keyring."""
        from novacron.security.keyring import Keyring

        settings = self.settings.security
        keyring = Keyring(
            self.directory,
            settings.master_key,
            settings.key_rotation_days,
            options=self.module_options(),
        )
        keyring.open(create=False)
        return keyring

    def module_options(self) -> ModuleOptions:
        """How to reach a hardware module; a PIN that was refused before is tried once more."""
        from novacron.security.module_options import ModuleOptions

        return ModuleOptions.of(self.settings.security, self.directory, insist=True)

    def record(self, action: str, target: str, **details: object) -> None:
        """Note in the audit log what is about to be done."""
        audit = self.audit()
        try:
            audit.append_blocking(action, f"cli:{user_name()}", target, details=details)
        finally:
            audit.close_blocking()


def user_name() -> str:
    """Whose process this is; behind sudo, who called it."""
    import pwd

    caller = os.environ.get("SUDO_USER")
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{name} (sudo by {caller})" if caller else name


def duration(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``12h``, ``30d`` or a bare number; for argparse."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3650 * 86400:
        raise argparse.ArgumentTypeError(
            "write 90s, 30m, 12h or 30d; at least a second, at most 3650d"
        )
    return seconds

"""The component that stands for the configuration: directories, files that changed, reloading."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel

from novacron.component import Component, Criticality, Health, HealthDepth, HealthState, Phase
from novacron.config.loaded import LoadedConfiguration, digest_of
from novacron.data_directory import DataDirectory
from novacron.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    InvalidError,
    TransientError,
    UnavailableError,
)
from novacron.record import Record

if TYPE_CHECKING:
    import trio

log = logging.getLogger("novacron.config")

_Model = TypeVar("_Model", bound=BaseModel)


class Change(Record):
    """One key whose value differs between two configurations; values safe to show."""

    key: str
    old: Any
    new: Any
    reloadable: bool
    """False: it takes a restart, and a reload refuses it."""


class DataDirectoryDeniedError(ConfigError, DeniedError):
    """The data directory may not be made or used."""

    code = "config.data_directory_denied"


class DataDirectoryInvalidError(ConfigError, InvalidError):
    """The data directory cannot be one."""

    code = "config.data_directory_invalid"


class DataDirectoryFullError(ConfigError, TransientError):
    """There is no room to make the data directory."""

    code = "config.data_directory_full"


class DataDirectoryUnavailableError(ConfigError, UnavailableError):
    """The disk does not do what it should."""

    code = "config.data_directory_unavailable"


class RestoredConfigurationError(ConfigError, ConflictError):
    """What runs is a stored copy, so there is nothing to read again."""

    code = "config.restored"


def changes(old: LoadedConfiguration, new: LoadedConfiguration) -> list[Change]:
    """Every key that differs, in the order of the schema."""
    if old.digest == new.digest:
        return []
    from novacron.config import keys
    from novacron.config.explain import safe

    found = []
    for key in keys.all_keys().values():
        before, after = old.value(key.name), new.value(key.name)
        if before != after:
            found.append(Change(key.name, safe(key, before), safe(key, after), key.reloadable))
    return found


def merged(
    old: LoadedConfiguration, new: LoadedConfiguration, keys: Iterable[str]
) -> LoadedConfiguration:
    """*old* with the values that *new* gives to *keys*: what runs after a reload that was refused
    in part. It keeps *old*'s files, so that health goes on saying that they differ from what runs.
    """
    taken = set(keys)
    settings = old.settings
    for key in taken:
        settings = _with_value(settings, key.split("."), new.value(key))
    entries = {path: entry for path, entry in old.entries.items() if ".".join(path) not in taken}
    entries |= {path: entry for path, entry in new.entries.items() if ".".join(path) in taken}
    return replace(old, settings=settings, digest=digest_of(settings), entries=entries)


def _with_value(model: _Model, path: Sequence[str], value: Any) -> _Model:
    name, *rest = path
    inner = _with_value(getattr(model, name), rest, value) if rest else value
    return model.model_copy(update={name: inner})


class Configuration(Component):
    """Makes the data directory's skeleton, and knows whether the files still say what runs."""

    name: ClassVar[str] = "configuration"
    phase: ClassVar[Phase] = Phase.PRE_INIT
    criticality: ClassVar[Criticality] = Criticality.CRITICAL

    def __init__(self, loaded: LoadedConfiguration, data: DataDirectory) -> None:
        self.loaded = loaded
        self.data = data

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Make what is missing of the data directory, mode 0700.

        Raises:
          ConfigError: it cannot be made; the message says whose permission or which disk.
        """
        # Nine stat calls are microseconds; a thread is only worth its hop when something is to do.
        if not all(_is_private(path) for path in self._skeleton()[1:]):
            import trio

            await trio.to_thread.run_sync(self._make_skeleton)
        for path, reason in (await self._differing()).items():
            log.warning(
                "a configuration file changed while the node was starting; what was read first runs",
                extra={"file": path, "reason": reason},
            )

    async def shutdown(self) -> None:
        """Nothing is held."""

    async def health_check(self, depth: HealthDepth) -> Health:
        """Deep: whether the files on disk still are what runs. A difference is no ill health."""
        if depth is HealthDepth.SHALLOW or not self.loaded.files:
            return Health(HealthState.HEALTHY)
        differing = await self._differing()
        if not differing:
            return Health(HealthState.HEALTHY, details={"digest": self.loaded.digest})
        return Health(
            HealthState.HEALTHY,
            "the configuration on disk differs from what runs: "
            + ", ".join(f"{path} {reason}" for path, reason in differing.items())
            + "; SIGHUP applies what can be applied without a restart",
            {"digest": self.loaded.digest, "differing": dict(differing)},
        )

    async def reread(self) -> LoadedConfiguration:
        """Load again from the same files, variables and flags; what runs is left alone.

        Raises:
          ConfigInvalidError, ConfigUnreadableError: the new files cannot be used.
          RestoredConfigurationError: the node runs on its last known good copy.
        """
        import trio

        inputs = self.loaded.inputs
        if inputs is None:
            raise RestoredConfigurationError(
                "cannot reload the configuration",
                why="the node was started with --last-known-good and runs on a stored copy",
                remedy="correct the configuration files and restart without --last-known-good",
            )
        from novacron.config.loading import load

        return await trio.to_thread.run_sync(
            lambda: load(self.loaded.files, inputs.overrides, inputs.environ, inputs.profile)
        )

    def adopt(self, loaded: LoadedConfiguration) -> None:
        """*loaded* runs from now on: health compares the files with it."""
        self.loaded = loaded

    def _skeleton(self) -> list[Path]:
        data = self.data
        return [
            data.root,
            data.boot,
            data.secrets,
            data.pki,
            data.audit,
            data.database,
            data.log,
            data.run,
            data.quarantine_area,
        ]

    def _make_skeleton(self) -> None:
        for number, path in enumerate(self._skeleton()):
            try:
                if number == 0:
                    # Directories above are shared with others; only the node's own are private.
                    path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700, exist_ok=True)
                # Never the root: an existing one may be /tmp, given by mistake.
                if number and stat.S_IMODE(path.stat().st_mode) & 0o077:
                    path.chmod(0o700)
                    log.warning(
                        "a directory of the node was open to other users; closed it",
                        extra={"directory": str(path)},
                    )
            except OSError as exc:
                raise _directory_error(path, exc) from exc

    async def _differing(self) -> Mapping[str, str]:
        """Files whose content is not what was loaded, and in what way."""
        if not self.loaded.files:
            return {}
        import trio

        return await trio.to_thread.run_sync(self._differing_now)

    def _differing_now(self) -> Mapping[str, str]:
        from novacron.config.errors import ConfigUnreadableError
        from novacron.config.files import digest_of_file

        found = {}
        for path, digest in zip(self.loaded.files, self.loaded.file_digests, strict=True):
            try:
                if digest_of_file(path) != digest:
                    found[str(path)] = "was changed"
            except ConfigUnreadableError as error:
                found[str(path)] = f"cannot be read ({error.why})"
        return found


def _is_private(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and not stat.S_IMODE(mode) & 0o077


def _directory_error(path: Path, exc: OSError) -> ConfigError:
    what = f"cannot make the directory {path}"
    key = "system.data_dir"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return DataDirectoryDeniedError(
            what,
            why="permission is denied to the user this runs as",
            remedy="give that user the directory (chown), or set another one",
            key=key,
        )
    if exc.errno == errno.EROFS:
        return DataDirectoryDeniedError(
            what,
            why="the file system is read-only",
            remedy="mount it writable, or set another directory",
            key=key,
        )
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataDirectoryFullError(
            what,
            why="the disk is full" if exc.errno == errno.ENOSPC else "the quota is used up",
            remedy="free some space, or set another directory",
            key=key,
        )
    if exc.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return DataDirectoryInvalidError(
            what,
            why="a part of the path is not a directory"
            if exc.errno in (errno.EEXIST, errno.ENOTDIR)
            else exc.strerror or "the path cannot be used",
            remedy="move away what is in its place, or set a path that can be a directory",
            key=key,
        )
    return DataDirectoryUnavailableError(
        what,
        why=exc.strerror or str(exc),
        remedy="check the disk, or set another directory",
        key=key,
    )

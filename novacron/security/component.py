"""The security component: keys, certificates, tokens and the audit log of one node.

A boot that finds everything in order reads seven small files in one worker thread, imports no
cryptography, writes nothing and waits for no disk; what it has to write (that it booted, that time
went on) is written in the background. The first boot makes what is missing in an order in which
each file needs only those before it: master key, keyring, authority, certificate, token file,
tokens. Cut short anywhere, the next boot goes on. None of it is undone when that boot fails:
removing a master key because a port was taken would be the greater harm.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from novacron.component import (
    HEALTHY,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    NodeView,
    ObservableComponent,
    Phase,
    ReloadableComponent,
)
from novacron.config.schema import ApiSettings, NetworkSettings, SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.environment.identity import Identity
from novacron.security import documents
from novacron.security.audit import AuditLog
from novacron.security.certificates import Certificates
from novacron.security.clock import ClockRecord
from novacron.security.errors import (
    AuditUnavailableError,
    ClockSetBackError,
    StorageFailedError,
    storage_failure,
)
from novacron.security.keyring import Keyring
from novacron.security.module_options import ModuleOptions
from novacron.security.names import certificate_names
from novacron.security.tokens import Tokens

if TYPE_CHECKING:
    from novacron.security.holdings import Holdings
    from novacron.security.issuer import Issuer
    from novacron.security.join_tokens import JoinTokens

UPKEEP_INTERVAL = 3600.0
"""Seconds between looks at what has to be renewed. Windows are days wide; an hour keeps the record
of the clock fresh enough."""
FILES_INTERVAL = 60.0
"""Seconds between looks at whether somebody else replaced the certificate: one ``stat``."""

_ABANDONED = 3600.0
"""Seconds after which a temporary file has no writer any more."""

_LOG = logging.getLogger("novacron.security")


class Security(ObservableComponent, ReloadableComponent):
    """Secrets, encryption, authentication, authorisation."""

    name: ClassVar[str] = "security"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.CRITICAL
    reloadable_keys: ClassVar[frozenset[str]] = frozenset(
        {
            "security.master_key",
            "security.pkcs11_module",
            "security.pkcs11_pin",
            "security.pkcs11_timeout",
        }
    )

    def __init__(
        self,
        identity: Identity,
        settings: SecuritySettings,
        network: NetworkSettings,
        api: ApiSettings,
        directory: DataDirectory,
        node: NodeView,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._directory = directory
        self._node = node
        # Looked up at each call, so that everything here sees the same clock.
        now: Callable[[], float] = lambda: time.time()  # noqa: E731
        self._now = now
        self.keyring = Keyring(
            directory,
            settings.master_key,
            settings.key_rotation_days,
            options=ModuleOptions.of(settings, directory),
            now=now,
        )
        self.certificates = Certificates(
            directory,
            settings,
            self.keyring,
            certificate_names(
                network.listen_address, network.advertise_address, api.listen_address
            ),
            now=now,
        )
        self.tokens = Tokens(directory, now=now)
        self._join_tokens: JoinTokens | None = None
        self.audit = AuditLog(
            directory,
            settings.audit_max_bytes,
            settings.audit_on_failure,
            keep_files=settings.audit_keep_files,
            keep_days=settings.audit_keep_days,
            now=now,
        )
        self.clock = ClockRecord(directory, now=now)
        self._warned: set[str] = set()
        self._upkeep_failure = ""
        self._master_failure = ""
        self._opened = False
        self._boot_recorded = trio.Event()
        self._upkeep_scope = trio.CancelScope()
        self._busy = trio.Lock()

    async def initialize(self, nursery: trio.Nursery) -> None:
        """Open everything.

        Raises:
          SecretReferenceError, KeyringError, KeyModuleError, KeyModuleAwayError: keys.
          CertificateError, ClockSetBackError: certificates.
          StorageFailedError: the disk refuses.
        """
        node_id = str(self._identity.node_id)
        made, warnings = await trio.to_thread.run_sync(self._open, node_id)
        self._warn(warnings)
        self._opened = True
        if made:
            _LOG.info(
                "Made the keys, certificates and first token of this node; the token is in %s.",
                self.tokens.admin_path,
            )
        self._boot_recorded = trio.Event()
        self._upkeep_scope = trio.CancelScope()
        nursery.start_soon(self._record_boot, made, warnings)
        nursery.start_soon(self._upkeep, self.certificates.material.certificate)

    def now(self) -> float:
        """Seconds since the epoch, as everything here sees it."""
        return self._now()

    @property
    def join_tokens(self) -> JoinTokens:
        """What this node has given out to others; a boot needs none of it."""
        if self._join_tokens is None:
            from novacron.security.join_tokens import JoinTokens

            self._join_tokens = JoinTokens(self._directory, now=self._now)
        return self._join_tokens

    def issuer(self) -> Issuer:
        """What issues and revokes, on the node that holds the authority's key; elsewhere each of its
        methods says so."""
        from novacron.security.issuer import Issuer

        return Issuer(
            self._directory,
            self._settings,
            self.keyring,
            self.join_tokens,
            self.certificates.revocations,
            str(self._identity.node_id),
            now=self._now,
        )

    def holdings(self) -> Holdings:
        """What other nodes have reported while the authority's key is replaced."""
        from novacron.security.holdings import Holdings

        return Holdings(self._directory)

    def _open(self, node_id: str) -> tuple[bool, list[str]]:
        """All disk work of a boot in one hop to a thread."""
        if documents.stamp(self.keyring.path) is not None:
            return self._open_files(node_id)
        with _x509_imported_meanwhile():
            return self._open_files(node_id)

    def _open_files(self, node_id: str) -> tuple[bool, list[str]]:
        directory = self._directory
        if not self._settings.core_dumps:
            _forbid_core_dumps()
        for path in (directory.secrets, directory.pki, directory.audit):
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as exc:
                raise storage_failure("create", path, exc) from exc
            _sweep(path)
        warnings: list[str] = []
        if (damaged := self.clock.load()) is not None:
            warnings.append(damaged)
        behind = self.clock.behind()
        self.keyring.open()
        rotated = self.keyring.rotate_if_due()
        if rotated is not None:
            _LOG.info("Made a new data key.", extra={"key_id": rotated})
        try:
            warnings += self.certificates.open(node_id)
        except ClockSetBackError as exc:
            if behind <= self._settings.clock_tolerance:
                raise
            raise ClockSetBackError(
                "the clock was set back",
                why=f"it is {_duration(behind)} behind the newest time this node has seen, and "
                f"certificates are not valid yet ({exc.why})",
                remedy="set the clock (timedatectl set-ntp true) and start the node again; see the "
                "runbook clock-set-back",
                key="security.clock_tolerance",
            ) from exc
        if behind > self._settings.clock_tolerance:
            warnings.append(
                f"The clock was set back: it is {_duration(behind)} behind the newest time this "
                "node has seen. Tokens and certificates live longer than they should until it is "
                "right; set it with timedatectl, and see the runbook clock-set-back."
            )
        made, more = self.tokens.open_blocking()
        warnings += more
        warnings += self.audit.open_blocking()
        return made, warnings

    async def _record_boot(self, made: bool, warnings: list[str]) -> None:
        actor = f"node:{self._identity.node_id}"
        details = {"boot_id": self._node.boot_id, "first": made, "warnings": warnings}
        try:
            await self.audit.append("node.start", actor, "node", details=details)
            await trio.to_thread.run_sync(self.clock.advance)
        except (AuditUnavailableError, StorageFailedError) as exc:
            # Serving goes on: health says it, and changing calls are refused by the log itself.
            self._upkeep_failure = str(exc)
            _LOG.error("Cannot keep a record of this boot.", extra={"why": str(exc)})
        finally:
            self._boot_recorded.set()

    async def _upkeep(self, path: Path) -> None:
        due = trio.current_time() + UPKEEP_INTERVAL
        seen = documents.stamp(path)
        with self._upkeep_scope:
            async with self._busy:
                await self._settle()
            while True:
                await trio.sleep(FILES_INTERVAL)
                with contextlib.suppress(AuditUnavailableError):  # health says it
                    await self.audit.flush_denials()
                present = documents.stamp(path)
                if present != seen or trio.current_time() >= due:
                    async with self._busy:
                        await self.look_after()
                    seen = present
                    # Half of what was replaced may have been there: looked at again soon.
                    wait = FILES_INTERVAL if self._upkeep_failure else UPKEEP_INTERVAL
                    due = trio.current_time() + wait

    async def look_after(self) -> None:
        """Rotate, renew and record whatever is due. A failure is reported and tried again."""
        try:
            rotated = await trio.to_thread.run_sync(self.keyring.rotate_if_due)
            if rotated is not None:
                await self._recorded("key.rotate", f"key:{rotated}")
            await self.renew_certificate(force=False)
            await trio.to_thread.run_sync(self.clock.advance)
            await trio.to_thread.run_sync(self.audit.prune_blocking)
            await self._settle()
            # Last: a module that is away keeps nothing else from being done.
            if self._master_failure:
                await self._take_over()
        except Exception as exc:
            before, self._upkeep_failure = self._upkeep_failure, str(exc) or type(exc).__name__
            if self._upkeep_failure != before:
                _LOG.error(
                    "Cannot renew keys and certificates; it is tried again every minute.",
                    extra={"why": self._upkeep_failure},
                )
        else:
            self._upkeep_failure = ""

    async def reload(self, settings: SecuritySettings) -> None:
        """Go over to another master key, or reach its module in another way.

        The keyring stays usable throughout: the node works with the ring key it has, whether the
        new master key opens it or not. What fails is tried again with the rest of the upkeep.

        Raises:
          KeyringError, SecretReferenceError, KeyModuleError, KeyModuleAwayError: the new master key
            cannot be used; the other one stays.
        """
        self._settings = settings
        async with self._busy:
            await self._take_over()

    async def _take_over(self) -> None:
        settings = self._settings
        options = ModuleOptions.of(settings, self._directory)
        try:
            await trio.to_thread.run_sync(self.keyring.take_over, settings.master_key, options)
        except Exception as exc:
            self._master_failure = str(exc) or type(exc).__name__
            raise
        self._master_failure = ""
        _LOG.info("The master key in use is the configured one.")
        await self._recorded("key.take_over", "keyring")

    async def _settle(self) -> None:
        """After a rotation of the master key, have the old one no longer open the keyring."""
        if not self.keyring.unsettled():
            return
        try:
            settled = await trio.to_thread.run_sync(self.keyring.settle)
        except Exception as exc:
            _LOG.warning(
                "The master key before this one still opens the keyring; it is tried again.",
                extra={"why": str(exc)},
            )
            return
        if settled:
            _LOG.info("The master key before this one no longer opens the keyring.")
            await self._recorded("key.settle", "keyring")

    async def renew_certificate(self, *, force: bool = True) -> bool:
        """Take a newer certificate into use if there is one to be had; with *force*, issue one.

        New handshakes use it at once, in contexts that were given out before, too.
        """
        material, warnings = await trio.to_thread.run_sync(
            lambda: self.certificates.examine(force=force)
        )
        self._warn(warnings)
        if material is None:
            return False
        self.certificates.adopt(material)
        _LOG.info(
            "A new certificate is in use.",
            extra={"serial": material.serial, "names": material.names},
        )
        await self._recorded("certificate.renew", f"certificate:{material.serial}")
        return True

    async def _recorded(self, action: str, target: str) -> None:
        await self.audit.append(action, f"node:{self._identity.node_id}", target)

    def _warn(self, warnings: list[str]) -> None:
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._node.warn(warning)

    async def health_check(self, depth: HealthDepth) -> Health:
        if not self._opened:
            return Health(HealthState.UNKNOWN, "not started")
        left = self.certificates.material.not_after - self._now()
        if left <= 0:
            # Not unhealthy: that would have the node restarted, which renews nothing, and end the
            # sessions that still work.
            return Health(
                HealthState.DEGRADED,
                f"the node's certificate expired {_duration(-left)} ago; see the runbook "
                "expired-certificate",
            )
        if self.audit.failure:
            return Health(
                HealthState.DEGRADED,
                f"the audit log cannot be written: {self.audit.failure}",
                self.audit.status(),
            )
        if self._master_failure or self._upkeep_failure:
            return Health(HealthState.DEGRADED, self._master_failure or self._upkeep_failure)
        return HEALTHY

    def statistics(self) -> Mapping[str, Any]:
        if not self._opened:
            return {}
        keys = self.keyring.status()
        return {
            "certificate": self.certificates.status(),
            "data_keys": len(keys["keys"]),
            "active_key": keys["active"],
            "audit": self.audit.status(),
        }

    async def shutdown(self) -> None:
        opened, self._opened = self._opened, False
        if opened:
            # A boot that is stopped at once is recorded before its stop.
            with trio.move_on_after(1.0):
                await self._boot_recorded.wait()
        self._upkeep_scope.cancel()
        # What upkeep is doing in a thread is finished before its files are closed.
        async with self._busy:
            await trio.to_thread.run_sync(self._close, opened)

    def _close(self, opened: bool) -> None:
        try:
            if opened:
                self.audit.flush_denials_blocking()
                self.audit.append_blocking(
                    "node.stop",
                    f"node:{self._identity.node_id}",
                    "node",
                    details={"boot_id": self._node.boot_id},
                )
                self.clock.advance()
        except (AuditUnavailableError, StorageFailedError) as exc:
            _LOG.error("Cannot keep a record of this stop.", extra={"why": str(exc)})
        finally:
            self.audit.close_blocking()
            self.certificates.close()
            self.keyring.close()


def _forbid_core_dumps() -> None:
    """Whoever gets a dump of this process has its keys. The soft limit is enough: systemd-coredump
    looks at it as the kernel does."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _sweep(directory: Path) -> None:
    """Remove what a process that was killed in the middle of a durable write has left."""
    horizon = time.time() - _ABANDONED
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                # The command line may be writing right now; it takes no hour.
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < horizon:
                        os.unlink(entry.path)


@contextlib.contextmanager
def _x509_imported_meanwhile() -> Iterator[None]:
    """A first boot needs X.509 (30 ms to import) and waits for the disk some ten times before: the
    two go side by side."""

    def load() -> None:
        # Whoever needs it says why it cannot be imported.
        with contextlib.suppress(ImportError):
            import cryptography.x509  # noqa: F401

    thread = threading.Thread(target=load, name="novacron import x509", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # No more threads for this user: imported where it is needed, a little later.
        yield
        return
    try:
        yield
    finally:
        thread.join()


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"

"""Every configuration key: its type, default, limits and meaning.

One model a section. These models are what components name in their constructors, what
``config schema`` prints, what ``configs/default.yaml`` and ``docs/reference/configuration.md`` are
generated from: a key exists here or nowhere. All are frozen; a reload makes new ones.

Every boot pays for this module, so it is built for cheapness: annotations are objects and not
strings (pydantic would compile and evaluate each), validators are built when the first value of a
section has to be validated (``defer_build``), and defaults are constructed without validation: a
test validates them instead.
"""

from typing import Literal

from pydantic import Field

from novacron.config.cache import CacheSettings as CacheSettings
from novacron.config.cache import RedisSettings as RedisSettings
from novacron.config.database import DatabaseSettings as DatabaseSettings
from novacron.config.database import PostgresqlSettings as PostgresqlSettings
from novacron.config.dwcp import AcpSettings as AcpSettings
from novacron.config.dwcp import AcpWeights as AcpWeights
from novacron.config.dwcp import AmstSettings as AmstSettings
from novacron.config.dwcp import DetectionSettings as DetectionSettings
from novacron.config.dwcp import DwcpSettings as DwcpSettings
from novacron.config.dwcp import HdeSettings as HdeSettings
from novacron.config.section import (
    RELOADABLE,
    ComponentClass,
    Fraction,
    Port,
    Seconds,
    Size,
)
from novacron.config.section import Section as Section
from novacron.config.security import SecuritySettings as SecuritySettings


class SystemSettings(Section):
    """The node itself."""

    node_id: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        json_schema_extra={"accepted": "a UUID in lower case, or null"},
        description="Node UUID to adopt at the first boot. Later boots use the stored identity and refuse another.",
    )
    data_dir: str | None = Field(
        None,
        description="Directory of everything the node keeps. Unset: /var/lib/novacron for root, else ${XDG_DATA_HOME:-~/.local/share}/novacron.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged.", json_schema_extra=RELOADABLE
    )
    log_format: Literal["auto", "console", "plain", "json"] = Field(
        "auto",
        description="What standard error gets: console (live view), plain lines, or JSON lines. auto: console on a terminal, else plain.",
    )
    log_file: bool = Field(
        True, description="Also write JSON lines to log/novacron.log in the data directory."
    )
    log_file_bytes: int = Field(
        16 * 1024 * 1024, ge=65536, description="Rotate the log file at this size, in bytes."
    )
    log_file_count: int = Field(5, ge=1, le=100, description="Rotated log files that are kept.")


class RetrySettings(Section):
    """How a component's start is tried again after a retryable failure."""

    attempts: int = Field(4, ge=1, le=20, description="Attempts in all, the first included.")
    delay: Seconds = Field(1.0, description="Seconds before the second attempt.")
    factor: float = Field(
        2.0, ge=1, le=10, description="Each later delay is this many times the one before."
    )
    max_delay: Seconds = Field(30.0, description="Longest delay, in seconds.")
    jitter: Fraction = Field(
        0.1, description="Each delay varies by up to this fraction, either way."
    )
    reset_after: Seconds = Field(
        60.0, description="Seconds of healthy running after which the delay is the first one again."
    )


class PhaseDeadlines(Section):
    """Longest time each phase may take, in seconds; then what is still starting is cancelled."""

    pre_init: Seconds = Field(10.0, description="Deadline of the pre_init phase, in seconds.")
    core: Seconds = Field(20.0, description="Deadline of the core phase, in seconds.")
    services: Seconds = Field(20.0, description="Deadline of the services phase, in seconds.")
    post_init: Seconds = Field(10.0, description="Deadline of the post_init phase, in seconds.")
    total: Seconds = Field(30.0, description="Deadline of the whole boot, in seconds.")


class StopSettings(Section):
    """The three steps of a stop."""

    drain: Seconds = Field(30.0, description="Seconds for work in flight to finish.")
    cleanup: Seconds = Field(10.0, description="Seconds for components to shut down in order.")
    force: Seconds = Field(
        5.0, description="Seconds for cancelled tasks to end before the process exits regardless."
    )


class HealthSettings(Section):
    """Continuous health checks."""

    interval: Seconds = Field(
        10.0,
        description="Seconds between shallow checks of every component.",
        json_schema_extra=RELOADABLE,
    )
    deep_interval: Seconds = Field(
        30.0,
        description="Seconds between deep checks of every component.",
        json_schema_extra=RELOADABLE,
    )
    cache: Seconds = Field(
        5.0, description="Seconds an answer is reused.", json_schema_extra=RELOADABLE
    )
    failures: int = Field(
        3,
        ge=1,
        le=100,
        description="Deep checks that must fail in a row before a component counts as failed.",
        json_schema_extra=RELOADABLE,
    )


class BootSettings(Section):
    """How the node boots, is supervised and stops."""

    schedule: Literal["dataflow", "level", "sequential"] = Field(
        "dataflow",
        description="dataflow starts a component the moment its last dependency is ready.",
    )
    max_concurrency: int = Field(
        64, ge=1, le=10000, description="Components that may be starting at once."
    )
    criticality: dict[str, ComponentClass] = Field(
        default_factory=dict, description="Component name to class: critical, degraded or warning."
    )
    start_timeout: dict[str, Seconds] = Field(
        default_factory=dict, description="Component name to seconds one start attempt may take."
    )
    retry: RetrySettings = RetrySettings.model_construct()
    deadlines: PhaseDeadlines = PhaseDeadlines.model_construct()
    stop: StopSettings = StopSettings.model_construct()
    health: HealthSettings = HealthSettings.model_construct()
    keep_reports: int = Field(
        10, ge=1, le=1000, description="Boot reports that are kept for --analyze."
    )


class ResourcesSettings(Section):
    """The least this host must have."""

    enforce: Literal["auto", "strict", "warn"] = Field(
        "auto",
        description="strict halts the boot on a host below the minimum, warn says so. auto: strict with a configuration file, warn without.",
    )
    min_cpus: int = Field(4, ge=1, description="CPUs, after cgroup limits and affinity.")
    min_memory_bytes: Size = Field(
        8 * 1024**3,
        description="Memory, after cgroup limits, in bytes. Up to 7 % less passes: firmware and kernel keep that much of what is installed.",
    )
    min_disk_bytes: Size = Field(
        100 * 1024**3,
        description="Size of the data directory's file system, in bytes. Up to 7 % less passes: file systems keep that much of their device.",
    )
    min_free_disk_bytes: Size = Field(
        64 * 1024**2,
        description="Free space in the data directory below which the boot always halts, in bytes.",
    )
    probe_timeout: Seconds = Field(
        2.0, description="Seconds each environment probe may take before its fact is unknown."
    )


class NetworkSettings(Section):
    """The peer listener and sessions to other nodes."""

    listen_address: str = Field("127.0.0.1", description="Address the peer listener binds.")
    port: Port = Field(7401, description="Port of the peer listener; 0 takes a free one.")
    advertise_address: str | None = Field(
        None, description="host:port other nodes reach this one at. Unset: the bound address."
    )
    seeds: tuple[str, ...] = Field(
        (), max_length=1024, description="host:port of peers to hold sessions with."
    )
    max_connections: int = Field(
        10000,
        ge=1,
        le=1000000,
        description="Sessions at once; past it new connections wait in the kernel's backlog.",
    )
    max_connections_per_peer: int = Field(
        16, ge=1, le=100000, description="Sessions at once from one address."
    )
    handshake_timeout: Seconds = Field(
        10.0, description="Seconds for TLS and the protocol handshake."
    )
    idle_timeout: Seconds = Field(
        60.0, description="Seconds without a frame after which a session is closed."
    )
    ping_interval: Seconds = Field(5.0, description="Seconds between pings.")
    connect_timeout: Seconds = Field(10.0, description="Seconds for a TCP connection to a seed.")
    max_frame_bytes: int = Field(
        1024 * 1024, ge=1024, le=64 * 1024**2, description="Largest control frame, in bytes."
    )


class ApiSettings(Section):
    """The REST interface."""

    listen_address: str = Field("127.0.0.1", description="Address the REST interface binds.")
    port: Port = Field(7400, description="Port of the REST interface; 0 takes a free one.")
    tls: Literal["auto", "on", "off"] = Field(
        "auto",
        description="TLS with the node's certificate. auto: on unless the address is loopback.",
    )
    max_request_bytes: int = Field(
        1024 * 1024, ge=1024, description="Largest request body, in bytes."
    )
    rate_limit: float = Field(
        50.0,
        gt=0,
        description="Requests a second for each token or address.",
        json_schema_extra=RELOADABLE,
    )
    rate_burst: int = Field(
        200,
        ge=1,
        description="Requests at once above the rate.",
        json_schema_extra=RELOADABLE,
    )
    request_timeout: Seconds = Field(30.0, description="Seconds a request may take.")
    max_connections: int = Field(1000, ge=1, description="Connections at once.")


class MonitoringSettings(Section):
    """The metrics endpoint."""

    listen_address: str = Field("127.0.0.1", description="Address /metrics binds.")
    port: Port = Field(7402, description="Port of /metrics; 0 takes a free one.")


class Settings(Section):
    """The whole configuration."""

    system: SystemSettings = SystemSettings.model_construct()
    boot: BootSettings = BootSettings.model_construct()
    resources: ResourcesSettings = ResourcesSettings.model_construct()
    security: SecuritySettings = SecuritySettings.model_construct()
    database: DatabaseSettings = DatabaseSettings.model_construct()
    cache: CacheSettings = CacheSettings.model_construct()
    network: NetworkSettings = NetworkSettings.model_construct()
    dwcp: DwcpSettings = DwcpSettings.model_construct()
    api: ApiSettings = ApiSettings.model_construct()
    monitoring: MonitoringSettings = MonitoringSettings.model_construct()

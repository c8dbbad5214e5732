"""The configuration keys of ``cache``; see :mod:`novacron.config.schema` for how."""

from typing import Literal

from pydantic import Field

from novacron.config.section import REFERENCE, Seconds, Section


class RedisSettings(Section):
    """The Redis that the nodes of a cluster share; used where cache.engine is redis."""

    address: str = Field(
        "127.0.0.1:6379",
        pattern=r"^(\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]\s]+):[0-9]{1,5}$",
        json_schema_extra={"accepted": "host:port, or [address]:port for IPv6"},
        description="host:port of the server. The host is the name its certificate must have.",
    )
    user: str | None = Field(
        None, min_length=1, description="ACL user to log in as. Unset: the default user."
    )
    password: str | None = Field(
        None,
        pattern=r"^(file:.+|env:.+|credential:.+)",
        description="Reference (file:, env:, credential:) to the user's password.",
        json_schema_extra=REFERENCE,
    )
    database: int = Field(0, ge=0, le=1_000_000, description="Number of the logical database.")
    tls: Literal["verify-full", "off"] = Field(
        "verify-full",
        description="verify-full: TLS, with the server's certificate and name checked. off: in the clear, password included.",
    )
    ca_certificate: str | None = Field(
        None,
        description="PEM file of the authorities that may have issued the server's certificate. Unset: those the operating system trusts.",
    )
    certificate: str | None = Field(
        None, description="PEM file of a client certificate. Needs private_key."
    )
    private_key: str | None = Field(
        None,
        pattern=r"^(file:.+|env:.+|credential:.+)",
        description="Reference (file:, env:, credential:) to the private key of certificate.",
        json_schema_extra=REFERENCE,
    )
    prefix: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        json_schema_extra={"accepted": "visible ASCII characters, at most 128"},
        description="What every key and channel of this cluster begins with. Unset: novacron: and 16 digits of the hash of the cluster's first authority.",
    )
    coherency: Literal["tracking", "pubsub"] = Field(
        "tracking",
        description="How a node learns what others changed. tracking: the server remembers who read what, and tells. pubsub: who changes a value tells all.",
    )
    max_staleness: Seconds = Field(
        2.0,
        ge=0.2,
        le=3600,
        description="Seconds after which no node serves a value any more that another one replaced, whatever happens to server and connections.",
    )
    timeout: Seconds = Field(
        0.5, description="Seconds one call may take; then it counts as a miss."
    )
    connect_timeout: Seconds = Field(
        1.0, description="Seconds in which a connection must be ready for use."
    )


class CacheSettings(Section):
    """The node's cache."""

    max_bytes: int = Field(64 * 1024**2, ge=1024, description="Memory for cached values, in bytes.")
    ttl: Seconds = Field(
        300.0, description="Seconds an entry lives unless its writer says otherwise."
    )
    engine: Literal["memory", "redis"] = Field(
        "memory",
        description="Where values are kept. memory: in this process alone. redis: in a Redis the nodes share, with this process's memory before it.",
    )
    redis: RedisSettings = RedisSettings.model_construct()

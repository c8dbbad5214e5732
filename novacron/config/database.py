"""The configuration keys of ``database``; see :mod:`novacron.config.schema` for how."""

from typing import Literal

from pydantic import Field

from novacron.config.section import REFERENCE, Seconds, Section


class PostgresqlSettings(Section):
    """The PostgreSQL that the nodes of a cluster share."""

    hosts: tuple[str, ...] = Field(
        ("127.0.0.1:5432",),
        min_length=1,
        max_length=16,
        description="host:port of each server, or the absolute directory of a Unix socket. Of several the one that takes changes is used; where more than one does, the one that was promoted last.",
    )
    name: str = Field(
        "novacron", min_length=1, max_length=63, description="Name of the database on the server."
    )
    user: str = Field("novacron", min_length=1, max_length=63, description="Role to log in as.")
    password: str | None = Field(
        None,
        pattern=r"^(file:.+|env:.+|credential:.+)",
        description="Reference (file:, env:, credential:) to the role's password. Read at each new connection. Unset: none is sent; log in by certificate, or as the system's user by a Unix socket.",
        json_schema_extra=REFERENCE,
    )
    tls: Literal["verify-full", "verify-ca", "off"] = Field(
        "verify-full",
        description="verify-full: the server's certificate must name the host. verify-ca: an authority is enough. off: in the clear, only to this machine unless plaintext is on. A Unix socket has no TLS.",
    )
    plaintext: bool = Field(
        False,
        description="Allow tls off to other machines. Everything can be read and changed on the way.",
    )
    ca_certificate: str | None = Field(
        None,
        description="PEM file of the authority that issues the server's certificate. Unset: those the system trusts.",
    )
    certificate: str | None = Field(
        None,
        description="PEM file of this node's certificate for the server; saves a round trip against a password.",
    )
    private_key: str | None = Field(
        None,
        pattern=r"^(file:.+|env:.+|credential:.+)",
        description="Reference (file:, env:, credential:) to the private key of certificate.",
        json_schema_extra=REFERENCE,
    )
    pool_min: int = Field(
        2, ge=0, le=1000, description="Connections that are kept open though idle."
    )
    pool_max: int = Field(
        8, ge=2, le=1000, description="Most connections of this node; the server bounds all nodes'."
    )
    connect_timeout: Seconds = Field(
        5.0, description="Seconds a new connection to one server may take, TLS and login included."
    )
    retry_for: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds that what is safe to repeat is repeated after a conflict between transactions or a lost connection. 0: never.",
    )
    migrate_timeout: Seconds = Field(
        60.0, description="Seconds to wait for another node that is migrating the schema."
    )


class DatabaseSettings(Section):
    """Where the node's durable state is kept."""

    engine: Literal["sqlite", "postgresql"] = Field(
        "sqlite",
        description="sqlite: a file of this node. postgresql: a server that the nodes of a cluster share.",
    )

    path: str | None = Field(
        None, description="SQLite file. Unset: database/novacron.db in the data directory."
    )
    readers: int = Field(4, ge=1, le=64, description="Connections that may read at once.")
    busy_timeout: Seconds = Field(
        5.0, description="Seconds to wait for a lock another process holds."
    )
    query_timeout: Seconds = Field(
        30.0,
        description="Seconds a call may take, its wait for a connection included; a statement that runs longer is interrupted.",
    )
    integrity_check: Literal["quick", "full", "off"] = Field(
        "quick", description="Check of the file at boot."
    )
    backups: int = Field(
        3, ge=0, le=100, description="Copies made before a migration that are kept."
    )
    postgresql: PostgresqlSettings = PostgresqlSettings.model_construct()

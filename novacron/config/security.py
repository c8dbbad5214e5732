"""The configuration keys of ``security``; see :mod:`novacron.config.schema` for how."""

from typing import Literal

from pydantic import Field

from novacron.config.section import REFERENCE, RELOADABLE, Seconds, Section


class SecuritySettings(Section):
    """Keys, certificates, tokens, audit."""

    master_key: str = Field(
        "file:",
        pattern=r"^(file:|env:.+|credential:.+|pkcs11:.+)",
        description="Reference to the master key: file:PATH (file: alone is secrets/master.key in the data directory, made at the first boot), env:NAME or credential:NAME (systemd), 32 bytes in base64; or pkcs11:token=TOKEN;object=LABEL, a key that stays in its hardware module (RFC 7512). To change it, run `novacron keys rotate --master --to REFERENCE` first.",
        json_schema_extra={
            **REFERENCE,
            **RELOADABLE,
            "accepted": "a reference: file:PATH, env:NAME, credential:NAME (systemd) or pkcs11:token=…;object=…",
        },
    )
    key_rotation_days: int = Field(
        90,
        ge=1,
        le=3650,
        description="Days after which a new data key is made. Old ones still open old data.",
    )
    certificate_days: int = Field(90, ge=1, le=825, description="Days a node certificate is valid.")
    renew_before_days: int = Field(
        30, ge=1, le=800, description="Days before its expiry that a certificate is renewed."
    )
    ca_days: int = Field(
        3650, ge=30, le=36500, description="Days the node's own certificate authority is valid."
    )
    ca_certificate: str | None = Field(
        None,
        description="PEM file of an outside authority to trust instead of the node's own. Needs certificate and private_key.",
    )
    certificate: str | None = Field(
        None, description="PEM file of this node's certificate, issued outside."
    )
    private_key: str | None = Field(
        None,
        pattern=r"^(file:.+|env:.+|credential:.+)",
        description="Reference (file:, env:, credential:) to the private key of certificate.",
        json_schema_extra=REFERENCE,
    )
    clock_tolerance: Seconds = Field(
        300.0,
        description="Seconds the clock may be behind the newest time this node has seen before the boot says that it was set back.",
    )
    audit_max_bytes: int = Field(
        64 * 1024**2,
        ge=65536,
        description="Size at which the audit log is continued in a new file, in bytes.",
    )
    audit_on_failure: Literal["stop", "continue"] = Field(
        "stop",
        description="When the audit log cannot be written: stop refuses changing calls, continue allows them and says so.",
    )
    pkcs11_module: str | None = Field(
        None,
        pattern=r"^/",
        description="Path of the shared library of the hardware module that a pkcs11: master key is in.",
        json_schema_extra=RELOADABLE,
    )
    pkcs11_pin: str | None = Field(
        None,
        pattern=r"^(file:.+|env:.+|credential:.+)",
        description="Reference (file:, env:, credential:) to the user PIN of its token.",
        json_schema_extra={**REFERENCE, **RELOADABLE},
    )
    pkcs11_timeout: Seconds = Field(
        10.0,
        le=300,
        description="Seconds the module may take for one request, starting it and logging in included. It is asked at the boot and when the master key changes, never between.",
        json_schema_extra=RELOADABLE,
    )
    core_dumps: bool = Field(
        False,
        description="Whether a crash of the node may leave a core dump. It would hold every key in use.",
    )
    cluster_token_seconds: Seconds = Field(
        15.0,
        le=3600.0,
        description="Seconds a node goes by what it has read of a token of the cluster: a revocation reaches it by then at the latest, and while the database is away known tokens work so long.",
    )
    audit_anchor_seconds: Seconds = Field(
        300.0,
        le=86400.0,
        description="Seconds between two anchors of the audit log in the database that the nodes share (database.engine: postgresql). Whoever has the rights of root on this machine can rewrite what was recorded since the last one, and nothing before it.",
    )
    audit_keep_files: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Files of the audit log that stay at most, the newest included; 0 for all. What goes is noted in the log, which stays verifiable.",
    )
    audit_keep_days: int = Field(
        0,
        ge=0,
        le=36500,
        description="Days after its last record that a file of the audit log is removed; 0 for never.",
    )

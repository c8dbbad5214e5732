"""The configuration keys of ``database``; see :mod:`novacron.config.schema` for how."""

from typing import Literal

from pydantic import Field

from novacron.config.section import Seconds, Section


class DatabaseSettings(Section):
    """Where the node's durable state is kept."""

    engine: Literal["sqlite", "postgresql"] = Field("sqlite", description="Where.")
    path: str | None = Field(
        None, description="SQLite file. Unset: database/novacron.db in the data directory."
    )
    readers: int = Field(4, ge=1, le=64, description="Connections that may read at once.")
    busy_timeout: Seconds = Field(
        5.0, description="Seconds to wait for a lock another process holds."
    )
    query_timeout: Seconds = Field(
        30.0, description="Seconds one statement may run before it is interrupted."
    )
    integrity_check: Literal["quick", "full", "off"] = Field(
        "quick", description="Check of the file at boot."
    )
    backups: int = Field(
        3, ge=0, le=100, description="Copies made before a migration that are kept."
    )

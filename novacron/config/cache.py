"""The configuration keys of ``cache``; see :mod:`novacron.config.schema` for how."""

from pydantic import Field

from novacron.config.section import Seconds, Section


class CacheSettings(Section):
    """The node's cache."""

    max_bytes: int = Field(64 * 1024**2, ge=1024, description="Memory for cached values, in bytes.")
    ttl: Seconds = Field(
        300.0, description="Seconds an entry lives unless its writer says otherwise."
    )

"""Settings of a session that travel with the first statement that needs them."""

from __future__ import annotations

from novacron.record import Record


class Mode(Record):
    """How a session runs what is no transaction of its own making."""

    writing: bool
    statement_timeout: int
    """Milliseconds."""

    def differences(self, present: Mode | None) -> list[bytes]:
        """What to send to a session that is in the mode *present*."""
        found = []
        if present is None or present.writing != self.writing:
            found.append(_WRITING if self.writing else _READING)
        if present is None or present.statement_timeout != self.statement_timeout:
            found.append(b"SET statement_timeout = %d" % self.statement_timeout)
        return found


_READING = b"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"
_WRITING = b"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE"

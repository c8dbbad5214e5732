"""What both engines count."""

from __future__ import annotations

from novacron.observe import Counter, Gauge, Histogram

STATEMENTS = Counter(
    "novacron_database_statements_total", "Statements run on the database.", ("kind",)
)
SECONDS = Histogram(
    "novacron_database_statement_seconds",
    "Time a statement took, wait for a connection apart.",
    ("kind",),
)
ERRORS = Counter("novacron_database_errors_total", "Statements that failed.", ("code",))
WAITING = Gauge("novacron_database_waiting", "Calls that wait for a connection.")

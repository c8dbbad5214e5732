"""The node's durable state: a seam, and SQLite behind it."""

from __future__ import annotations

from novacron.database.component import Database
from novacron.database.registrations import (
    Registration,
    deregister,
    list_registrations,
    register,
)
from novacron.database.store import Parameters, Reader, Row, Store, StoreStatistics, Transaction

__all__ = [
    "Database",
    "Parameters",
    "Reader",
    "Registration",
    "Row",
    "Store",
    "StoreStatistics",
    "Transaction",
    "deregister",
    "list_registrations",
    "register",
]

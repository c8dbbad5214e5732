"""Exit statuses of a node and of the commands around it; part of the public interface."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Stopped cleanly."""
FAILED: Final = 1
"""The boot failed and was rolled back, or the node could not go on."""
USAGE: Final = 2
DEGRADED: Final = 3
"""Only where asked for: ``--exit-when-ready``."""
CONFIG: Final = 78
"""``EX_CONFIG`` of sysexits.h, which systemd knows as well."""

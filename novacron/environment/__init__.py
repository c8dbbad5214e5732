"""What machine this is, which node lives on it, and whether it is enough."""

from __future__ import annotations

from novacron.environment.detection import Environment
from novacron.environment.identity import Identity
from novacron.environment.resources import Resources

__all__ = ["Environment", "Identity", "Resources"]

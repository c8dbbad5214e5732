"""Who may build a network: root. On CI a missing privilege is a failure, which `Lab` raises."""

from __future__ import annotations

import os

import pytest

from bench.lab.netns import obstacle

_OBSTACLE = obstacle()

needs_lab = pytest.mark.skipif(
    _OBSTACLE is not None and not os.environ.get("CI"), reason=_OBSTACLE or "never"
)

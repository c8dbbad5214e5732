"""Unit types, so that a signature says what a number means."""

from __future__ import annotations

from typing import NewType

Seconds = NewType("Seconds", float)
"""A duration on a monotonic clock."""

Bytes = NewType("Bytes", int)
BitsPerSecond = NewType("BitsPerSecond", int)

NodeId = NewType("NodeId", str)
"""A node's stored UUID in canonical lower-case form; never derived from a hostname."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

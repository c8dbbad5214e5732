"""Metrics: what the node measures about itself, for Prometheus to fetch."""

from __future__ import annotations

from novacron.monitoring.component import Monitoring

__all__ = ["Monitoring"]

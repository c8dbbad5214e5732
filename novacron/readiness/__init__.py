"""What a node does last before it says READY: the five activities of the post_init phase.

Each is a component that depends on the one before it, so the graph holds their order: system health
check, startup metrics, service discovery, background jobs, ready signal.
"""

from novacron.readiness.discovery import Discovery
from novacron.readiness.jobs import BackgroundJobs
from novacron.readiness.metrics import StartupMetrics
from novacron.readiness.signal import ReadyFile, ReadySignal
from novacron.readiness.system_health import SystemHealth

__all__ = [
    "BackgroundJobs",
    "Discovery",
    "ReadyFile",
    "ReadySignal",
    "StartupMetrics",
    "SystemHealth",
]

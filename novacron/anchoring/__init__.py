"""Where the audit log stood when, noted in the database that the nodes share: what root of one machine
cannot make undone."""

from novacron.anchoring.component import Anchoring

__all__ = ["Anchoring"]

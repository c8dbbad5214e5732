"""How a node comes to trust a cluster, goes on being trusted, and stops: joining, renewal,
revocation."""

from novacron.trust.component import Trust

__all__ = ["Trust"]

"""ACP, adaptive congestion prevention: what the way to each peer is like, and how to send on it so
that queues do not build."""

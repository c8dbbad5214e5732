"""What kind of path leads to a node, and which congestion control suits it."""

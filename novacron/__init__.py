"""NovaCron: the node runtime of a distributed VM management system for bare-metal hosts."""

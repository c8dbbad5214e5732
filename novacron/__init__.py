"""NovaCron: the node runtime of a distributed VM management system for bare-metal hosts."""

__version__ = "0.1.0"
"""The release; equal to the version in pyproject.toml. Here as well because asking the installed
package's metadata costs 15 ms."""

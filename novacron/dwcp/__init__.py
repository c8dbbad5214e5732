"""DWCP, the protocol by which nodes move VM disks, memory and state to each other."""

from novacron.dwcp.component import Dwcp

__all__ = ["Dwcp"]

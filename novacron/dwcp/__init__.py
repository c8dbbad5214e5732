"""DWCP, the distributed WAN communication protocol: moves disks, memory and snapshots of VMs between
nodes."""

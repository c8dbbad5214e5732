"""What a node does when the servers it leans on fail: each fault, at boot and under load."""

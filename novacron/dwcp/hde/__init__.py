"""HDE, hybrid data encoding: how bytes become fewer on their way between nodes."""

"""HDE, hybrid data encoding: fewer bytes on the wire for the same content."""

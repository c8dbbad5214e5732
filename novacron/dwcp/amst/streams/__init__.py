"""How many connections a link has."""

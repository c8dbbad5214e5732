"""Joining, renewal and revocation."""

"""Real servers, started privately for a measurement or a test: a context manager each."""

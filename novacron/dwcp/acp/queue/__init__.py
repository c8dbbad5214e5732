"""How fast a link may send so that no queue builds on its path."""

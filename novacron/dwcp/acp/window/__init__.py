"""The samples of one path that are looked back on."""

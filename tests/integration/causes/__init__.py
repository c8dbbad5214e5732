"""Every cause of a boot that fails or is degraded, by what is wrong."""

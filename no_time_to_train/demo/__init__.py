"""A first run with nothing to download."""

"""A first run with nothing to download: drawn scenes, the nano networks, and the real stages."""

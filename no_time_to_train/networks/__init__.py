"""The frozen networks: found by name, downloaded, built, and loaded strictly from their checkpoints."""

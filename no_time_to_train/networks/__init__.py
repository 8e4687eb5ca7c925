"""The frozen networks: built by name, downloaded, and loaded strictly."""

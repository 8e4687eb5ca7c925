"""The method from Python."""

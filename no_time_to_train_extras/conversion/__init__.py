"""Annotations of one tool as those of another."""

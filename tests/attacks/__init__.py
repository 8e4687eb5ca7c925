"""Attacks: hostile and broken files, each of which must be read correctly or refused in one line."""

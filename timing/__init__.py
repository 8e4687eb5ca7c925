"""Measurements of speed and memory: ``python -m timing.stages`` and ``python -m timing.soak``, from the repository."""

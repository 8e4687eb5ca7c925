"""A run of the three stages, on one or many devices, that survives being killed."""

"""References chosen from a pool of annotated objects (docs/references.md)."""

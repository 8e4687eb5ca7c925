"""The method inside CVAT's own tools (docs/annotation_tools.md)."""

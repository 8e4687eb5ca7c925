"""The method for other programs: images in, COCO out, over HTTP (docs/server.md)."""

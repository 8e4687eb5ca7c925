"""The paper's data sets: downloaded where they have a public address, unpacked, converted to COCO's format, checked."""

"""The paper's data sets: downloaded where they have an address, unpacked, converted to COCO's format and checked."""

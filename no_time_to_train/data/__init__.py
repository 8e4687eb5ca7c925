"""Data in and out: images, annotations, references, targets, memories and results.

This package turns files into what ``method/`` works on, and what it finds into files. It runs no network.

======================  ============================================================================================
module                  what it reads or writes
======================  ============================================================================================
``images.py``           images and masks: from files, PIL images, arrays and tensors to RGB pixels and bool masks
``rle.py``              masks as COCO's run-length encodings (RLE)
``coco.py``             COCO annotation files, checked and repaired
``class_splits.py``     the paper's class splits, and the classes that a run selects
``reference_sets.py``   reference sets: which annotations are the shots of each class; the paper's sampler
``reference_forms/``    references in the forms that people have: class folders, LabelMe, COCO, Pascal VOC, YOLO
``file_names.py``       names of images, and of the files that are written for them
``targets.py``          target images: from files, folders, globs, videos and COCO files
``datasets.py``         the torch data sets of stage 1 (crops of references) and stage 3 (target images)
``memory_files.py``     memory files
``coco_results.py``     detections as COCO result records, and back
``instances.py``        what is found in one image, for users of the Python interface
``voc.py``              the classes and colors of Pascal VOC
``label_files.py``      instances as the files of labelling tools: LabelMe, YOLO, CVAT
======================  ============================================================================================
"""

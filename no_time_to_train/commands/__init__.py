"""The commands of ``no-time-to-train``, a module each with a function ``run(argv)``."""

#: Command -> what it does, in a line. ``a-command`` is the module ``a_command``, imported when it is called.
COMMANDS = {
    "demo": "a first run, with nothing to download: drawn scenes, small networks, the real stages",
    "segment": "find your own objects: show a few, search a folder of pictures",
    "memory": "look into memories of objects, join them, or remove classes: show, merge or remove",
    "test": "run a stage of the method: fill_memory, postprocess_memory, vis_memory or test",
    "sample-references": "draw a reference set of N shots a class, the paper's for the same seed",
    "coco-to-references": "take a COCO file's own annotations as a reference set",
    "evaluate": "score a COCO results file of any detector",
    "report": "put finished runs beside the published figures",
    "download": "download official checkpoints",
    "prepare": "download and convert a data set of the paper: coco, pascal-voc, cdfsod or lvis",
    "boxes-to-masks": "give the boxes of a COCO file masks, with SAM 2 or SAM",
}

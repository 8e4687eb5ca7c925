"""The drawn scenes that accuracy is measured on, and the nano networks with references from them."""

import contextlib
import io
from pathlib import Path

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.demo.run_demo import annotation_files, write_inputs
from no_time_to_train.method.settings import Settings


def segmenter_of(folder: Path, images: int, seed: int, shots: int, settings: Settings) -> ReferenceSegmenter:
    """Draw the scenes of a seed as the demo does, and show the references to the nano networks.

    Args:
        folder: The folder of the scenes. Where it has a ``references.memory``, nothing is drawn and described again.
        images: The number of targets.
        seed: The seed.
        shots: References per class. Those of fewer shots are the first of these.
        settings: The method's numbers.
    """
    segmenter = ReferenceSegmenter.from_pretrained("nano", settings=settings)
    memory = folder / "references.memory"
    if memory.exists():
        segmenter.load_memory(memory)
        return segmenter
    with contextlib.redirect_stdout(io.StringIO()):
        write_inputs(folder, shots, images, seed)
    references, _ = annotation_files(folder)
    coco = read_coco(references)
    for category_id, chosen in sorted(read_references(folder / "references.json").items()):
        for shot in chosen:
            annotation = coco.anns[shot["ann_ids"][0]]
            image = references.parent / "images" / coco.imgs[annotation["image_id"]]["file_name"]
            mask = coco.annToMask(annotation).astype(bool)
            segmenter.add_reference(coco.cats[category_id]["name"], image, mask)
    segmenter.renumber({category["name"]: category_id for category_id, category in coco.cats.items()})
    segmenter.save_memory(memory)
    return segmenter

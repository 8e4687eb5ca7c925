"""``sample-references``: draw the paper's reference sets."""

from pathlib import Path

from no_time_to_train.errors import UserError
from no_time_to_train.ranges import Positive, Seed

#: Beginning of a split's name -> where ``prepare`` puts the annotations that references are drawn from, and the images.
SOURCES = {
    "lvis": ("data/lvis/annotations/lvis_v1_train.json", "data/coco"),
    "pascal_voc": ("data/pascal-voc/annotations/voc0712_trainval_masks.json", "data/pascal-voc/VOCdevkit"),
    "": ("data/coco/annotations/instances_train2017.json", "data/coco/train2017"),
}


def sample_references(
    *,
    split: str | None = None,
    cat_names: str | None = None,
    n_shot: Positive,
    seed: Seed = 42,
    out: Path,
    json_file: Path | None = None,
    skip_impossible: bool = False,
    fill_up: bool = False,
    heuristics: bool = False,
    plot: bool = False,
    image_dir: Path | None = None,
) -> None:
    """Draw a reference set of N shots per class, equal to the paper's for the same seed.

    Args:
        split: Class split or data set, such as few_shot_classes, coco or lvis. Default: all classes of the file.
        cat_names: Classes by name, separated by commas, instead of a split.
        n_shot: Instances per class, each from another image.
        seed: Seed of the drawing.
        out: Reference set to write, .json or .pkl.
        json_file: COCO annotations to draw from. Default: those that prepare makes for the split, or COCO's train2017.
        skip_impossible: Leave out annotations with isimpossible 1.
        fill_up: Repeat references where a class has too few, as the paper does for LVIS; always for splits of LVIS.
        heuristics: Do not draw: prefer large objects that touch no border. The seed has no effect.
        plot: Draw the references into a picture next to the reference set.
        image_dir: Folder of the images, for --plot. Default: that of the default json_file.

    Examples:
        no-time-to-train sample-references --split few_shot_classes --n-shot 30 --seed 33 --out refs.pkl
    """
    from no_time_to_train.data import reference_sets
    from no_time_to_train.data.class_splits import select_categories
    from no_time_to_train.data.coco import read_coco

    if json_file is None and (split or "").startswith("cdfsod"):
        raise UserError(
            "references of CD-FSOD are provided by the benchmark: use coco-to-references, or give --json-file"
        )
    source = next(source for start, source in SOURCES.items() if (split or "").startswith(start))
    json_file, image_dir = json_file or Path(source[0]), image_dir or Path(source[1])
    coco = read_coco(json_file)
    categories = select_categories(coco, json_file, split, cat_names)
    references = reference_sets.sample_references(
        coco,
        categories,
        n_shot,
        seed,
        fill_up=fill_up or (split or "").startswith("lvis"),
        skip_impossible=skip_impossible,
        heuristics=heuristics,
    )
    reference_sets.write_references(references, out)
    print(f"{len(references)} classes, {n_shot} references each: {out}")
    if plot:
        from no_time_to_train.data.datasets import ReferenceDataset
        from no_time_to_train.visual.drawing import save_picture
        from no_time_to_train.visual.memory_pictures import TILE, reference_sheet

        shots = ReferenceDataset(coco, image_dir, categories, references, TILE)
        save_picture(reference_sheet(shots, categories), out.with_suffix(".png"))
        print(f"picture: {out.with_suffix('.png')}")

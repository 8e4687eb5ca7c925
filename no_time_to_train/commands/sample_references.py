"""``sample-references``: draw the paper's reference sets."""

from pathlib import Path


def sample_references(
    *,
    split: str | None = None,
    cat_names: str | None = None,
    n_shot: int,
    seed: int = 33,
    out: Path,
    json_file: Path = Path("data/coco/annotations/instances_train2017.json"),
    skip_impossible: bool = False,
    fill_up: bool = False,
    plot: bool = False,
    image_dir: Path = Path("data/coco/train2017"),
) -> None:
    """Draw a reference set of N shots per class, equal to the paper's for the same seed.

    Args:
        split: Class split, such as few_shot_classes. Default: all classes.
        cat_names: Classes by name, separated by commas, instead of a split.
        n_shot: Instances per class, each from another image.
        seed: Seed of the drawing.
        out: Reference set to write, .json or .pkl.
        json_file: COCO annotations to draw from.
        skip_impossible: Leave out annotations with isimpossible 1.
        fill_up: Repeat references where a class has too few, as the paper does for LVIS.
        plot: Draw the references into a picture next to the reference set.
        image_dir: Folder of the images, for --plot.

    Examples:
        no-time-to-train sample-references --split few_shot_classes --n-shot 30 --seed 33 --out refs.pkl
    """
    from no_time_to_train.data import reference_sets
    from no_time_to_train.data.class_splits import select_categories
    from no_time_to_train.data.coco import read_coco

    coco = read_coco(json_file)
    categories = select_categories(coco, json_file, split, cat_names)
    references = reference_sets.sample_references(
        coco, categories, n_shot, seed, fill_up=fill_up, skip_impossible=skip_impossible
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

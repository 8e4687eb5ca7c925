"""``sample``: draw the paper's reference sets, or choose the best references of a pool."""

from pathlib import Path
from typing import Literal

from no_time_to_train.commands.options import NetworkChoice, check_new_file
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import PICTURE, check_files, check_replaceable
from no_time_to_train.ranges import Positive, Seed

#: Beginning of a split's name -> where ``prepare`` puts the annotations that references are drawn from, and the images.
SOURCES = {
    "lvis": ("data/lvis/annotations/lvis_v1_train.json", "data/coco"),
    "pascal_voc": ("data/pascal-voc/annotations/voc0712_trainval_masks.json", "data/pascal-voc/VOCdevkit"),
    "": ("data/coco/annotations/instances_train2017.json", "data/coco/train2017"),
}


def sample(
    *,
    split: str | None = None,
    cat_names: str | None = None,
    n_shot: Positive,
    seed: Seed = 42,
    out: Path,
    json_file: Path | None = None,
    skip_impossible: bool = False,
    fill_up: bool = False,
    choose: Literal["random", "large", "best"] | None = None,
    heuristics: bool = False,
    plot: bool = False,
    image_dir: Path | None = None,
    pool: Positive = 50,
    cache_dir: Path | None = None,
    networks: NetworkChoice,
) -> None:
    """Draw a reference set of N references per class, equal to the paper's for the same seed; or choose the best ones.

    Args:
        split: Class split or data set, such as few_shot_classes, coco or lvis. Default: all classes of the file.
        cat_names: Classes by name, separated by commas, instead of a split.
        n_shot: Instances per class, each from another image.
        seed: Seed of the drawing; with --choose best, of the drawing of the pool.
        out: Reference set to write, .json or .pkl.
        json_file: COCO annotations to draw from. Default: those that prepare makes for the split, or COCO's train2017.
        skip_impossible: Leave out annotations with isimpossible 1.
        fill_up: Repeat references where a class has too few, as the paper does for LVIS; always for splits of LVIS.
        choose: random is the paper's draw; large prefers large objects that touch no border; best takes those that
            find the other objects of a pool best (docs/references.md), which needs the networks and the images.
            Default: random.
        heuristics: The same as --choose large. The seed has no effect.
        plot: Draw the references into a picture next to the reference set.
        image_dir: With --plot or --choose best, the folder of the images. Default: that of the default json_file.
        pool: With --choose best, the instances per class to choose from, each from another image. They are drawn.
        cache_dir: With --choose best, the folder of the proposal cache, with which a killed run resumes. Default: a
            folder next to --out, which may be deleted afterwards.
        networks: The networks, with --choose best.

    Examples:
        no-time-to-train sample --split few_shot_classes --n-shot 30 --seed 33 --out refs.pkl
        no-time-to-train sample --n-shot 5 --choose best --json-file my.json --image-dir my/ --out refs.json
    """
    check_new_file(out, "a reference set", ".json", ".pkl", ".pickle")
    if plot:
        check_replaceable(out.with_suffix(".png"), PICTURE)
    if heuristics and choose not in (None, "large"):
        raise UserError(f"--heuristics and --choose {choose} are two ways to choose: leave one of them out")
    if choose == "best":
        if pool < n_shot:
            raise UserError(f"--pool {pool} is smaller than --n-shot {n_shot}: there is nothing to choose from")
        networks.check()
    else:
        for name, usual in vars(NetworkChoice()).items():
            if getattr(networks, name) != usual:
                raise UserError(f"--{name.replace('_', '-')} is for --choose best: without it, no network is used")

    if json_file is None and (split or "").startswith("cdfsod"):
        raise UserError("references of CD-FSOD come with the benchmark: use references from-coco, or give --json-file")
    source = next(source for start, source in SOURCES.items() if (split or "").startswith(start))
    json_file, image_dir = json_file or Path(source[0]), image_dir or Path(source[1])
    check_files(json_file)

    from no_time_to_train.data.class_splits import check_split, select_categories

    check_split(split, cat_names)

    from no_time_to_train.data import reference_sets
    from no_time_to_train.data.coco import read_coco

    coco = read_coco(json_file)
    categories = select_categories(coco, json_file, split, cat_names)
    references = reference_sets.sample_references(
        coco,
        categories,
        pool if choose == "best" else n_shot,
        seed,
        fill_up=fill_up or (split or "").startswith("lvis"),
        skip_impossible=skip_impossible,
        heuristics=heuristics or choose == "large",
        at_least=n_shot,
    )
    if choose == "best":
        from no_time_to_train_extras.choosing.choose_references import choose_references, print_reports, say_pool

        candidates = reference_sets.validate_references(references, coco, json_file, categories, None)
        cache_dir = cache_dir or out.with_name(f"{out.stem}_proposals")
        say_pool(candidates, cache_dir)
        references, reports = choose_references(
            coco, image_dir, categories, candidates, n_shot, networks.build(), cache_dir
        )
        print_reports(reports, n_shot)
    reference_sets.write_references(references, out)
    print(f"{len(references)} classes, {plural(n_shot, 'reference')} each: {out}")
    if plot:
        from no_time_to_train.data.datasets import ReferenceDataset
        from no_time_to_train.visual.drawing import save_picture
        from no_time_to_train.visual.memory_pictures import TILE, reference_sheet

        picture = out.with_suffix(".png")
        shots = ReferenceDataset(coco, image_dir, categories, references, TILE)
        save_picture(reference_sheet(shots, categories), picture)
        print(f"picture: {picture}")

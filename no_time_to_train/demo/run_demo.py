"""The demo: draw scenes, and do with them and the nano networks what a user does with an own data set."""

from pathlib import Path

from no_time_to_train.benchmarks.own_data_set import CONFIG, BenchmarkOptions, configure, run_stages
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.errors import plural
from no_time_to_train.files import PICTURE, kind_of, read_json, write_json
from no_time_to_train.pipeline.results_page import write_results_page

#: Scenes for the references: this many per shot, and some more, so that every class has enough instances.
SCENES_PER_SHOT, MORE_SCENES = 8, 16

#: Point prompts per side. The nano SAM 2 sees 256 pixels per side, and needs fewer prompts than the paper's 32.
POINTS_PER_SIDE = 24

#: Targets that ``segment`` is shown with in the end.
SEGMENTED = 4


def run_demo(out: Path, n_shot: int, images: int, seed: int) -> list[str]:
    """Draw scenes of the novel classes, run the three stages on them, and write ``index.html``.

    An earlier demo in the folder is replaced. The seed is that of the scenes and of the choice of references.

    Returns:
        The paths of a few of the targets, in which ``segment`` is shown.
    """
    write_inputs(out, n_shot, images, seed)
    run_stages(out)
    files = annotation_files(out)
    write_results_page(
        out, f"Drawn scenes, {plural(n_shot, 'shot')}", *files, *(file.parent / "images" for file in files)
    )
    return write_examples(out)


def annotation_files(out: Path) -> tuple[Path, Path]:
    """The annotation files of a demo's references and targets; the images are in ``images`` next to each."""
    return out / "references" / "instances.json", out / "targets" / "instances.json"


def write_inputs(out: Path, n_shot: int, images: int, seed: int) -> None:
    """Draw the references and the targets, choose the reference set, and write the configuration of the stages."""
    print(
        f"drawing {plural(images, 'target')}, and {plural(n_shot, 'reference')} of each class; "
        "the networks have never seen these classes"
    )
    if not (out / CONFIG).exists():  # it marks the folder as a demo's, which can begin again if it is killed
        write_json(out / CONFIG, {})
    for folder in ("overlays", "previews", "thumbnails"):  # an earlier demo may have had more targets
        for picture in (out / folder).glob("*.jpg"):
            if kind_of(picture) == PICTURE:
                picture.unlink()
    references, targets = annotation_files(out)
    write_coco(references.parent, NOVEL_CLASSES, SCENES_PER_SHOT * n_shot + MORE_SCENES, 2 * seed)
    write_coco(targets.parent, NOVEL_CLASSES, images, 2 * seed + 1)
    options = BenchmarkOptions(n_shot=n_shot, seed=seed, nano=True, points_per_side=POINTS_PER_SIDE)
    configure(references, targets, out, options)


def write_examples(out: Path) -> list[str]:
    """Write the chosen references as ``examples.json``, and return the paths of a few targets."""
    references, targets = annotation_files(out)
    chosen = {shot["ann_ids"][0] for shots in read_references(out / "references.json").values() for shot in shots}
    data = read_json(references)
    data["annotations"] = [annotation for annotation in data["annotations"] if annotation["id"] in chosen]
    used = {annotation["image_id"] for annotation in data["annotations"]}
    shown = [image for image in data["images"] if image["id"] in used]
    data["images"] = [{**image, "file_name": f"references/images/{image['file_name']}"} for image in shown]
    write_json(out / "examples.json", data, indent=None)
    return sorted(str(path) for path in (targets.parent / "images").iterdir())[:SEGMENTED]

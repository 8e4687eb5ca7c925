"""COCO 2017: train2017 for references, val2017 for targets."""

from functools import partial
from pathlib import Path

from no_time_to_train.benchmarks.prepare import steps
from no_time_to_train.benchmarks.prepare.archives import archive_step, archives_of

#: The annotations of all splits, and the images of each.
IMAGES = archives_of("coco")
ANNOTATIONS = IMAGES.pop("annotations")

#: The published numbers of each split, crowds included.
COUNTS = {"train2017": {"images": 118_287, "annotations": 860_001}, "val2017": {"images": 5_000, "annotations": 36_781}}


def parts(options: steps.PrepareOptions) -> steps.Parts:
    """The steps that make ``coco/annotations/instances_*.json``, ``coco/train2017`` and ``coco/val2017``."""
    folder = options.root / "coco"
    files = {split: folder / "annotations" / f"instances_{split}.json" for split in IMAGES}
    members = {f"annotations/{path.name}" for path in files.values()}
    needed = []
    for split, path in files.items():
        problem = partial(steps.annotations_problem, path, COUNTS[split], options.subset)
        name = f"COCO {split} annotations"
        needed.append(archive_step(name, problem, ANNOTATIONS, folder, members.__contains__, options))
    for split, path in files.items():
        needed.append(images_step(f"COCO {split} images", split, {path: COUNTS[split]}, options))
    return {"coco": needed}


def images_step(name: str, split: str, files: dict[Path, dict[str, int]], options: steps.PrepareOptions) -> steps.Step:
    """The step that downloads the images of a split.

    Args:
        files: The annotation files that list the images, with their published counts. They name an image
            ``000000000139.jpg`` or ``val2017/000000000139.jpg``; images of other splits are ignored.
    """
    folder = options.root / "coco" / split

    def problem() -> str | None:
        names = set()
        for path, counts in files.items():
            if not path.is_file():
                return f"{path}, which lists the images, is missing"
            for image in steps.read_annotations(path, counts, options.subset)["images"]:
                image_split, _, file_name = image["file_name"].rpartition("/")
                if image_split in ("", split):
                    names.add(file_name)
        missing = sorted(file_name for file_name in names if not (folder / file_name).is_file())
        return steps.missing_message(missing, len(names), folder)

    def wanted(member: str) -> bool:
        return member.startswith(f"{split}/") and member.endswith(".jpg")

    return archive_step(name, problem, IMAGES[split], folder.parent, wanted, options)

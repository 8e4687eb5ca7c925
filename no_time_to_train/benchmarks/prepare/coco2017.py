"""COCO 2017: train2017 for references, val2017 for targets."""

from functools import partial
from pathlib import Path

from no_time_to_train.benchmarks.prepare.fetch import Archive, fetch_and_unpack
from no_time_to_train.benchmarks.prepare.steps import Parts, Settings, Step
from no_time_to_train.benchmarks.prepare.verify import missing_file, missing_images, read_counted, say_missing

ANNOTATIONS = Archive(("http://images.cocodataset.org/annotations/annotations_trainval2017.zip",), 253)

#: Split -> its images.
IMAGES = {
    "train2017": Archive(("http://images.cocodataset.org/zips/train2017.zip",), 19337),
    "val2017": Archive(("http://images.cocodataset.org/zips/val2017.zip",), 816),
}

#: Split -> the published numbers, crowds included.
COUNTS = {
    "train2017": {"images": 118_287, "annotations": 860_001},
    "val2017": {"images": 5_000, "annotations": 36_781},
}


def parts(settings: Settings) -> Parts:
    """``coco/annotations/instances_*.json``, ``coco/train2017`` and ``coco/val2017``."""
    folder = settings.root / "coco"
    annotations = {split: folder / "annotations" / f"instances_{split}.json" for split in IMAGES}
    names = {f"annotations/{path.name}" for path in annotations.values()}
    steps = [
        Step(
            f"COCO {split} annotations",
            partial(missing_file, path, COUNTS[split], settings.subset),
            partial(
                fetch_and_unpack,
                ANNOTATIONS,
                settings.downloads,
                folder,
                names.__contains__,
                settings.keep_archives,
            ),
            ANNOTATIONS.source(settings.downloads),
        )
        for split, path in annotations.items()
    ]
    return {"coco": [*steps, *(images_step(split, annotations[split], settings) for split in IMAGES)]}


def images_step(split: str, annotations: Path, settings: Settings) -> Step:
    """The step that brings the images of a split."""
    folder = settings.root / "coco"

    def problem() -> str | None:
        if not annotations.is_file():
            return f"{annotations}, which lists them, is not there"
        images = read_counted(annotations, COUNTS[split], settings.subset)["images"]
        names = [entry["file_name"] for entry in images]
        return say_missing(missing_images(names, folder / split), len(names), folder / split)

    return Step(
        f"COCO {split} images",
        problem,
        partial(fetch_images, split, settings),
        IMAGES[split].source(settings.downloads),
    )


def fetch_images(split: str, settings: Settings) -> None:
    """Download and unpack the images of a split into ``coco``."""
    folder = settings.root / "coco"
    fetch_and_unpack(
        IMAGES[split],
        settings.downloads,
        folder,
        lambda name: name.startswith(f"{split}/") and name.endswith(".jpg"),
        settings.keep_archives,
    )

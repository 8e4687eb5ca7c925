"""CD-FSOD: six data sets of other domains, with the N-shot references and the targets that the benchmark fixed."""

import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from no_time_to_train.benchmarks.prepare import steps
from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.data.class_splits import class_splits
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json

#: The sets, under the names of their folders. The class split of a set is ``cdfsod_<SET>``.
SETS = [split.removeprefix("cdfsod_") for split in class_splits() if split.startswith("cdfsod_")]

SHOTS = (1, 5, 10)

#: The image folders of references and of targets; those of DIOR are nested one level deeper.
IMAGE_FOLDERS = {"shot": ("train", "train/new_train"), "test": ("test", "test/new_test")}

SOURCE = (
    "there is no direct download: get it from the links in https://github.com/lovelyqian/CDFSOD-benchmark "
    "(Google Drive or Baidu)"
)


def parts(options: steps.PrepareOptions) -> steps.Parts:
    """The steps of each set: ``cdfsod/<SET>`` as published, and ``cdfsod/<SET>/prepared/*.json``."""
    for name in options.sets:
        if name not in SETS:
            raise UserError(f"--sets: CD-FSOD has no set {name!r}; choose from {', '.join(SETS)}")
    return {name: set_steps(name, options) for name in options.sets or SETS}


def set_steps(name: str, options: steps.PrepareOptions) -> list[steps.Step]:
    """The steps that prepare one set."""
    folder = options.root / "cdfsod" / name
    files = [*(f"{shots}_shot" for shots in SHOTS), "test"]
    originals = {file: folder / "annotations" / f"{file}.json" for file in files}
    archive = find_archive(name, options)
    needed = [
        steps.Step(
            name,
            lambda: next(filter(None, map(original_problem, originals.values())), None),
            partial(unpack, archive, folder.parent, lambda member: member.startswith(f"{name}/")) if archive else None,
            f"{SOURCE} and unpack it to {folder}, or save it as {folder}.zip",
        )
    ]
    for file, original in originals.items():
        prepared = folder / "prepared" / f"{file}.json"
        problem = partial(steps.annotations_problem, prepared, {}, options.subset)
        needed.append(steps.Step(f"{name} {file}.json", problem, partial(convert, original, name, prepared)))
        if options.makes_masks(references=file != "test"):
            needed.append(steps.masks_step(f"{name} {file}.json", prepared, folder, options))
    return needed


def find_archive(name: str, options: steps.PrepareOptions) -> Path | None:
    """The archive of a set that the user has saved, or None."""
    files = [f"{name}{ending}" for ending in (".zip", ".tar", ".tar.gz", ".tgz")]
    paths = [folder / file for folder in (options.root / "cdfsod", options.downloads) for file in files]
    return next((path for path in paths if path.is_file()), None)


def original_problem(original: Path) -> str | None:
    """What is missing of a published annotation file and of the images that it lists, or None."""
    return steps.missing(original) or find_images(original, steps.read_annotations(original, {}, subset=True))


def convert(original: Path, name: str, prepared: Path) -> None:
    """Write an annotation file of a set with file names relative to the set's folder."""
    data = steps.read_annotations(original, {}, subset=True)
    categories = {category["id"]: category["name"] for category in data.get("categories", [])}
    unknown = sorted(set(class_splits()[f"cdfsod_{name}"]) - set(categories.values()))
    if unknown:
        raise UserError(f"{original} has no class {unknown[0]!r}: is it an annotation file of {name}?")
    find_images(original, data)
    if original.stem != "test":
        warn_of_few_shots(data, categories, original)
    write_json(prepared, data, indent=None)


def find_images(original: Path, data: dict[str, Any]) -> str | None:
    """Make the file names in an annotation file's data relative to the set's folder; says which images are missing."""
    folder, absent = original.parent.parent, []
    candidates = IMAGE_FOLDERS["test" if original.stem == "test" else "shot"]
    for image in data["images"]:
        paths = [f"{candidate}/{image['file_name']}" for candidate in candidates]
        found = next((path for path in paths if (folder / path).is_file()), None)
        if found is None:
            absent.append(paths[0])
        else:
            image["file_name"] = found
    return steps.missing_message(absent, len(data["images"]), folder)


def warn_of_few_shots(data: dict[str, Any], categories: dict[int, str], original: Path) -> None:
    """Print a warning for each class that has fewer annotations than the file ``<shots>_shot.json`` should have."""
    shots = int(original.stem.removesuffix("_shot"))
    counts = Counter(annotation["category_id"] for annotation in data["annotations"])
    for category_id, category in categories.items():
        if (count := counts[category_id]) < shots:
            print(f"warning: {original} has {count} of {shots} annotations of {category!r}", file=sys.stderr)

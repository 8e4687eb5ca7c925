"""CD-FSOD: six sets of other domains, with the N-shot references and the targets that the benchmark fixed."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.benchmarks.prepare.steps import Parts, Settings, Step, masks_step
from no_time_to_train.benchmarks.prepare.verify import missing_file, read_counted, say_missing
from no_time_to_train.data.class_splits import class_splits
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json

#: The sets, named as their folders and their class splits.
SETS = [split.removeprefix("cdfsod_") for split in class_splits() if split.startswith("cdfsod_")]

SHOTS = (1, 5, 10)

#: Where the images of a set's annotation files lie; DIOR nests them once more.
IMAGE_FOLDERS = {"shot": ("train", "train/new_train"), "test": ("test", "test/new_test")}

SOURCE = (
    "it has no direct address: download it from the links of https://github.com/lovelyqian/CDFSOD-benchmark "
    "(Google Drive or Baidu)"
)


def parts(settings: Settings) -> Parts:
    """``cdfsod/<SET>`` as published and ``cdfsod/<SET>/prepared/*.json``, with file names relative to the set.

    Raises:
        UserError: ``settings.sets`` names a set that there is not.
    """
    for name in settings.sets:
        if name not in SETS:
            raise UserError(f"--sets: CD-FSOD has no set {name!r}; choose among {', '.join(SETS)}")
    return {name: set_steps(name, settings) for name in settings.sets or SETS}


def set_steps(name: str, settings: Settings) -> list[Step]:
    """The steps of one set."""
    folder = settings.root / "cdfsod" / name
    files = [*(f"{shots}_shot" for shots in SHOTS), "test"]
    originals = {file: folder / "annotations" / f"{file}.json" for file in files}
    archive = find_archive(name, settings)
    steps = [
        Step(
            name,
            lambda: next((f"{path} is not there" for path in originals.values() if not path.is_file()), None),
            partial(unpack, archive, folder.parent, lambda member: member.startswith(f"{name}/")) if archive else None,
            f"{SOURCE} and unpack it to {folder}, or save it as {folder}.zip",
        )
    ]
    for file, original in originals.items():
        prepared = folder / "prepared" / f"{file}.json"
        steps.append(
            Step(
                f"{name} {file}.json",
                partial(missing_file, prepared, {}, settings.subset),
                partial(convert, original, name, prepared),
            )
        )
        if settings.masks == "all" or (settings.masks == "references" and file != "test"):
            steps.append(masks_step(f"{name} {file}.json", prepared, folder, settings))
    return steps


def find_archive(name: str, settings: Settings) -> Path | None:
    """The archive of a set that the user brought, if there is one."""
    for folder in (settings.root / "cdfsod", settings.downloads):
        for ending in (".zip", ".tar", ".tar.gz", ".tgz"):
            if (folder / f"{name}{ending}").is_file():
                return folder / f"{name}{ending}"
    return None


def convert(original: Path, name: str, prepared: Path) -> None:
    """Write a set's annotation file with file names relative to the set's folder.

    Raises:
        UserError: the file is broken, lacks a class of the split, or images are missing.
    """
    data = read_counted(original, {}, subset=True)
    categories = {category["id"]: category["name"] for category in data.get("categories", [])}
    unknown = sorted(set(class_splits()[f"cdfsod_{name}"]) - set(categories.values()))
    if unknown:
        raise UserError(f"{original} has no class {unknown[0]!r}: is it that of {name}?")
    folder = original.parent.parent
    candidates = IMAGE_FOLDERS["test" if original.stem == "test" else "shot"]
    missing = []
    for image in data["images"]:
        paths = [f"{candidate}/{image['file_name']}" for candidate in candidates]
        found = next((path for path in paths if (folder / path).is_file()), None)
        if found is None:
            missing.append(paths[0])
        else:
            image["file_name"] = found
    problem = say_missing(missing, len(data["images"]), folder)
    if problem:
        raise UserError(f"{original}: {problem}")
    if original.stem != "test":
        warn_of_few_shots(data, categories, original)
    write_json(prepared, data, indent=None)


def warn_of_few_shots(data: dict[str, Any], categories: dict[int, str], original: Path) -> None:
    """Print a warning for each class that has fewer annotations than the file's name says."""
    shots = int(original.stem.removesuffix("_shot"))
    for category_id, category in categories.items():
        found = sum(annotation["category_id"] == category_id for annotation in data["annotations"])
        if found < shots:
            print(f"warning: {original} has {found} of {shots} annotations of {category!r}", file=sys.stderr)

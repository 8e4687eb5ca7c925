"""Write the results of a run again with other thresholds: what runs behind ``no-time-to-train filter``."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.data.coco import check_images, check_sections, index_coco
from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.names import check_file_name
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.errors import UserError
from no_time_to_train.evaluation.results_file import read_results
from no_time_to_train.files import is_file, link_or_copy
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.pipeline.replace_folder import MOVED, check_results, new_output
from no_time_to_train.pipeline.run_record import FILE_NAME as RECORD
from no_time_to_train.pipeline.summary import Summary, Thresholds
from no_time_to_train.ranges import Fraction, check_number
from no_time_to_train.visual.drawing import class_palette


def filter_results(
    folder: Path,
    out: Path,
    score: float | None,
    class_scores: Sequence[str],
    formats: Sequence[str],
    overwrite: bool,
    link: bool = False,
) -> Summary:
    """Write all files of a folder of results again, from all instances that the method returned.

    Args:
        out: The folder to write, which may be ``folder``.
        score: The lowest score of an instance; None keeps that of the folder.
        class_scores: The lowest scores of classes, as NAME=X. Others keep those of the folder, unless ``score`` is
            given.
        formats: Further formats to write; without any, those that the folder has.
        overwrite: Whether finished results in ``out`` may be replaced.
    """
    content, memory, results = read_folder(folder, "all_results.json")
    listed, order = folder / "images.json", [category["name"] for category in content["categories"]]
    records = defaultdict(list)
    try:
        targets = [_target(entry, folder) for entry in content["images"]]
        colors = {category["name"]: category["color"] for category in content["categories"] if "color" in category}
        class_palette(order, colors)  # which checks them
        earlier = Thresholds(**content["info"])
        for threshold in (earlier.score, *earlier.class_scores.values()):
            check_number(f"{listed}: a threshold", threshold, Fraction)
        for record in results:
            if "segmentation" not in record:
                raise KeyError("segmentation")
            records[record["image_id"]].append(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{listed} or all_results.json is not the one that segment wrote: {error!r}") from error
    chosen = Thresholds.parse(earlier.score if score is None else score, class_scores)
    if score is None:
        chosen = replace(chosen, class_scores={**earlier.class_scores, **chosen.class_scores})
    chosen.check_names(order)
    formats = formats or [name for name in (*FORMATS, "video") if (folder / name).is_dir()]
    with new_output(out, overwrite) as new:
        output = OutputFolder(new, memory, chosen, formats, order, shown_as=out, link=link, colors=colors)
        for target in tqdm(targets, desc="filter", unit=" image"):
            assert target.image_id is not None
            output.add(target, target.read(), records[target.image_id])
        output.finish()
        if (folder / RECORD).is_file():
            link_or_copy(folder / RECORD, new / RECORD)
    return output.summary


def read_folder(folder: Path, results: str) -> tuple[dict[str, Any], MemoryBank, list[dict[str, Any]]]:
    """What ``images.json``, the memory and a file of results in a folder hold, which are checked."""
    (content, _), memory = check_results(folder, results), load_memory(folder / "references.memory")
    check_sections(content, folder / "images.json")
    check_images(content["images"], folder / "images.json")
    known = index_coco({**content, "categories": list(map(asdict, memory.categories))})
    return content, memory, read_results(folder / results, known)


def _target(entry: dict[str, Any], folder: Path) -> TargetImage:
    """The target that an entry of ``images.json`` describes."""
    path = Path(os.path.normpath(folder.resolve() / entry["path"]))
    size, seconds = (int(entry["height"]), int(entry["width"])), entry.get("seconds")
    check_file_name(entry["stem"])
    if not Path(os.path.normpath(Path("/x", entry["stem"]))).is_relative_to("/x"):
        raise ValueError(f"the stem {entry['stem']!r} leads outside the folder")
    return TargetImage(
        entry["file_name"],
        entry["stem"],
        partial(_read, path, size),
        path,
        entry["id"],
        entry.get("video"),
        None if seconds is None else float(seconds),
    )


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels of an image that had a size when its instances were found."""
    if not is_file(path):
        raise UserError(f"image not found: {path}; {MOVED}")
    image = as_rgb(path, size)
    if image.shape[:2] != size:
        raise UserError(f"image {path} was {size[1]}x{size[0]} pixels and is {image.shape[1]}x{image.shape[0]} now")
    return image

"""Make a sheet like the paper's figures 1 and 3: per run, a row of its references and of targets with what was found.

    python scripts/figure_sheet.py runs/cdfsod_*/1shot_seed33 --out figure_1.jpg
    python scripts/figure_sheet.py runs/few_shot_classes/10shot_seed33 --references 0 --targets 8 --out figure_3.jpg

The runs are folders of the benchmarks' scripts or of the stages, whose images are still where ``run.json`` says. The
targets are the first ones in which something was found, or those of ``--image-ids``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import read_listed_image
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.visual.drawing import Picture, check_pictures, draw_instances, put_text, save_picture

#: Height of a picture, of a row's title, and of the gap between pictures, in pixels.
HEIGHT, TITLE, GAP = 240, 28, 6


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="Folders with run.json and results.json.")
    parser.add_argument("--out", type=Path, required=True, help="The picture to write, .jpg or .png.")
    parser.add_argument("--references", type=int, default=2, help="References per run. Default: 2.")
    parser.add_argument("--targets", type=int, default=4, help="Targets per run. Default: 4.")
    parser.add_argument("--image-ids", nargs="+", default=[], metavar="ID", help="Ids of the targets, instead.")
    parser.add_argument("--threshold", type=float, default=0.5, help="The lowest score that is drawn. Default: 0.5.")
    args = parser.parse_args(words)
    try:
        check_pictures([args.out])
        bands = [row(run, args.references, args.targets, args.image_ids, args.threshold) for run in args.runs]
        width = max(band.shape[1] for band in bands)
        sheet = np.vstack([np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in bands])
        save_picture(sheet, args.out)
    except UserError as error:
        sys.exit(f"error: {error}")


def row(run: Path, references: int, targets: int, image_ids: list[str], threshold: float) -> Picture:
    """The pictures of a run side by side under its name, uint8 [h, w, 3] RGB.

    Args:
        references: The most references that are shown.
        targets: The most targets that are shown, where ``image_ids`` is empty.
        threshold: The lowest score that is drawn, in [0, 1].
    """
    record = read_json(run / "run.json")
    try:
        filled, tested = (
            record[stage]["config"]["model"]["init_args"]["dataset_cfgs"][part]
            for stage, part in (("fill_memory", "fill_memory"), ("test", "test"))
        )
        chosen = [one for ids in record["fill_memory"]["references"]["annotations"].values() for one in ids]
    except (KeyError, TypeError) as error:
        raise UserError(f"{run / 'run.json'} is not of a run of the stages: it lacks {error}") from error

    coco = read_coco(filled["json_file"])
    names = {key: category["name"] for key, category in coco.cats.items()}
    shown = [coco.anns[one] for one in chosen[:references]]
    pictures = [draw(filled["root"], coco.imgs[one["image_id"]], [one], names) for one in shown]

    coco = read_coco(tested["json_file"])
    names = {key: category["name"] for key, category in coco.cats.items()}
    found: dict[Any, list[dict[str, Any]]] = {}
    for one in read_json(run / "results.json"):
        if one["score"] >= threshold:
            found.setdefault(one["image_id"], []).append(one)
    by_name = {str(image_id): image_id for image_id in coco.imgs}
    if unknown := [one for one in image_ids if one not in by_name]:
        raise UserError(f"{tested['json_file']} has no image {unknown[0]}")
    for image_id in [by_name[one] for one in image_ids] or list(found)[:targets]:
        pictures.append(draw(tested["root"], coco.imgs[image_id], found.get(image_id, []), names))
    if not pictures:
        raise UserError(f"{run} has no reference to show and found nothing with a score of {threshold} or more")
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    band = np.hstack([part for picture in pictures for part in (picture, gap)])
    title = np.full((TITLE, band.shape[1], 3), 255, np.uint8)
    put_text(title, f"{run.parent.name} {run.name}", (4, 20), 0.5)
    return np.vstack([title, band])


def draw(root: str, entry: dict[str, Any], records: list[dict[str, Any]], names: dict[int, str]) -> Picture:
    """An image with annotations or results over it, uint8 [HEIGHT, w, 3] RGB."""
    image = read_listed_image(root, entry)
    masks = np.array([annotation_mask(one, *image.shape[:2]) for one in records], bool).reshape(-1, *image.shape[:2])
    classes = np.array([list(names).index(one["category_id"]) for one in records], int)
    labels = [names[one["category_id"]] + (f" {one['score']:.2f}" if "score" in one else "") for one in records]
    picture = draw_instances(image, Masks.pack(masks), classes, labels)
    width = max(round(HEIGHT * picture.shape[1] / picture.shape[0]), 1)
    return np.asarray(cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    main()

"""Make the example of the paper's authors: one boat and one bird as references, ten images of COCO as targets.

    python scripts/make_custom_dataset.py --out data/my_custom_dataset

The annotations come from COCO's ``instances_train2017.json``. The command downloads the twelve images and prints the
commands that give the authors' figures. These figures come from masks that SAM ViT-H made from the boxes of the
references; where its checkpoint is not in ``checkpoints/``, the commands use COCO's own masks instead. Files have the
names of the authors' README.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from no_time_to_train.commands.boxes_to_masks import SAM_H
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import open_image
from no_time_to_train.errors import UserError
from no_time_to_train.files import write_json
from no_time_to_train.networks.download import fetch_file

#: Class -> id of the image of COCO train2017 whose first instance of the class is the reference.
REFERENCES = {"bird": 429819, "boat": 101435}

#: Ids of the target images in COCO train2017.
TARGETS = [98636, 361948, 456065, 42279, 517410, 439274, 407180, 459673, 481301, 460598]

#: The AP that the authors publish, in percent.
AP = {"bbox": 47.8, "segm": 45.8}

#: Files in the folder.
REFERENCES_FILE, MASKS_FILE = "annotations/custom_references.json", "annotations/custom_references_with_segm.json"
TARGETS_FILE = "annotations/custom_targets.json"

#: Defaults of the command line.
JSON_FILE, OUT = Path("data/coco/annotations/instances_train2017.json"), Path("data/my_custom_dataset")
IMAGES_URL = "http://images.cocodataset.org/train2017"


def make(json_file: Path, out: Path, url: str) -> None:
    """Write ``REFERENCES_FILE``, ``TARGETS_FILE`` and ``images/``.

    Args:
        json_file: COCO's ``instances_train2017.json``.
        out: The folder to write.
        url: The address that the images' file names are appended to.

    Raises:
        UserError: The annotation file is another one, or an image cannot be downloaded.
    """
    coco = read_coco(json_file)
    ids = {category["name"]: category["id"] for category in coco.dataset.get("categories", [])}
    advice = "use COCO's instances_train2017.json"
    for name in REFERENCES:
        if name not in ids:
            raise UserError(f"{json_file} has no class {name!r}: {advice}")
    for image_id in [*REFERENCES.values(), *TARGETS]:
        if image_id not in coco.imgs:
            raise UserError(f"{json_file} has no image {image_id}: {advice}")
    categories = [{"id": ids[name], "name": name} for name in REFERENCES]

    def annotations_of(image_id: int, names: list[str]) -> list[dict[str, Any]]:
        wanted = [ids[name] for name in names]
        return [annotation for annotation in coco.imgToAnns[image_id] if annotation["category_id"] in wanted]

    shots = []
    for name, image_id in REFERENCES.items():
        instances = [annotation for annotation in annotations_of(image_id, [name]) if not annotation["iscrowd"]]
        if not instances:
            raise UserError(f"{json_file}: image {image_id} has no instance of {name}: {advice}")
        shots.append(instances[0])
    for file_name, images, annotations in (
        (REFERENCES_FILE, list(REFERENCES.values()), shots),
        (TARGETS_FILE, TARGETS, [a for image_id in TARGETS for a in annotations_of(image_id, list(REFERENCES))]),
    ):
        entries = [coco.imgs[image_id] for image_id in images]
        write_json(out / file_name, {"images": entries, "annotations": annotations, "categories": categories})
        for entry in entries:
            path = out / "images" / entry["file_name"]
            fetch_file(f"{url}/{entry['file_name']}", path, open_image, "an image")


def commands(out: Path, sam_h: bool) -> list[str]:
    """The commands to run on the data set.

    Args:
        out: Folder of the data set.
        sam_h: Whether SAM ViT-H makes the masks of the references.
    """
    names = (REFERENCES_FILE, MASKS_FILE, "images", TARGETS_FILE, "found", "found/results.json")
    references, masks, images, targets, found, results = (str(out / name) for name in names)
    network = ["--sam-checkpoint", str(SAM_H), "--as-published"]
    shown = masks if sam_h else references
    lines = [
        ["boxes-to-masks", references, "--image-dir", images, "--out", masks, *network],
        ["segment", "--references", shown, "--images", targets, "--out", found, "--score", "0"],
        ["evaluate", "--gt", targets, "--results", results],
    ]
    return [shlex.join(["no-time-to-train", *line]) for line in (lines if sam_h else lines[1:])]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json-file", type=Path, default=JSON_FILE, help=f"COCO's annotation file. Default: {JSON_FILE}."
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"Folder to write. Default: {OUT}.")
    parser.add_argument("--url", default=IMAGES_URL, help=f"Where COCO's training images are. Default: {IMAGES_URL}.")
    args = parser.parse_args()
    try:
        make(args.json_file, args.out, args.url)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(REFERENCES)} references and {len(TARGETS)} targets: {args.out}. Now run:")
    print(*(f"  {command}" for command in commands(args.out, SAM_H.is_file())), sep="\n")
    print(f"expected AP: {AP['bbox']} (bbox), {AP['segm']} (segm)")
    if not SAM_H.is_file():
        print(
            f"note: {SAM_H} does not exist, so the commands use COCO's masks, but that AP is with masks by SAM ViT-H: "
            "run no-time-to-train download sam_vit_h, then this script again",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()

"""Make the example of the paper's authors: one boat and one bird as references, ten images of COCO as targets.

    python scripts/make_custom_dataset.py --out data/boats_and_birds

The annotations come from COCO's ``instances_train2017.json``. The command downloads the twelve images and prints the
commands that give the authors' figures.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

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

#: Defaults of the command line.
JSON_FILE, OUT = Path("data/coco/annotations/instances_train2017.json"), Path("data/boats_and_birds")
IMAGES_URL = "http://images.cocodataset.org/train2017"


def make(json_file: Path, out: Path, url: str) -> None:
    """Write ``references.json``, ``targets.json`` and ``images/``.

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
        ("references.json", list(REFERENCES.values()), shots),
        ("targets.json", TARGETS, [a for image_id in TARGETS for a in annotations_of(image_id, list(REFERENCES))]),
    ):
        entries = [coco.imgs[image_id] for image_id in images]
        write_json(out / file_name, {"images": entries, "annotations": annotations, "categories": categories})
        for entry in entries:
            path = out / "images" / entry["file_name"]
            fetch_file(f"{url}/{entry['file_name']}", path, open_image, "an image")


def commands(out: Path) -> list[str]:
    """The commands to run on the data set in this folder."""
    references, targets, found = (str(out / name) for name in ("references.json", "targets.json", "found"))
    segment = ["segment", "--references", references, "--images", targets, "--out", found, "--score", "0"]
    evaluate = ["evaluate", "--gt", targets, "--results", str(out / "found" / "results.json")]
    return [shlex.join(["no-time-to-train", *arguments]) for arguments in (segment, evaluate)]


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
    print(*(f"  {command}" for command in commands(args.out)), sep="\n")
    print(f"expected AP: {AP['bbox']} (bbox), {AP['segm']} (segm)")


if __name__ == "__main__":
    main()

"""The example of the paper's authors: one boat and one bird, and ten images of COCO train2017 to find more of them in.

    python scripts/make_custom_dataset.py --out data/boats_and_birds

It takes the annotations from COCO's own file, downloads the twelve images, and prints the commands that give the
authors' figures.
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

#: Class -> the image of COCO train2017 whose first object of that class is the reference.
REFERENCES = {"bird": 429819, "boat": 101435}
TARGETS = [98636, 361948, 456065, 42279, 517410, 439274, 407180, 459673, 481301, 460598]
AP = {"bbox": 47.8, "segm": 45.8}  # as the authors publish them, in percent
IMAGES_URL = "http://images.cocodataset.org/train2017"


def make(json_file: Path, out: Path, url: str) -> None:
    """Write ``references.json``, ``targets.json`` and ``images/`` into ``out``."""
    coco = read_coco(json_file)
    ids = {category["name"]: category["id"] for category in coco.dataset.get("categories", [])}
    for name in REFERENCES:
        if name not in ids:
            raise UserError(f"{json_file} has no class {name!r}: give COCO's instances_train2017.json")
    for image_id in [*REFERENCES.values(), *TARGETS]:
        if image_id not in coco.imgs:
            raise UserError(f"{json_file} has no image {image_id}: give COCO's instances_train2017.json")
    categories = [{"id": ids[name], "name": name} for name in REFERENCES]

    def of(image_id: int, names: list[str]) -> list[dict[str, Any]]:
        return [one for one in coco.imgToAnns[image_id] if one["category_id"] in [ids[name] for name in names]]

    shots = []
    for name, image_id in REFERENCES.items():
        objects = [one for one in of(image_id, [name]) if not one["iscrowd"]]
        if not objects:
            raise UserError(f"{json_file}: image {image_id} shows no {name}: give COCO's instances_train2017.json")
        shots.append(objects[0])
    for file_name, images, annotations in (
        ("references.json", list(REFERENCES.values()), shots),
        ("targets.json", TARGETS, [one for image_id in TARGETS for one in of(image_id, list(REFERENCES))]),
    ):
        entries = [coco.imgs[image_id] for image_id in images]
        write_json(out / file_name, {"images": entries, "annotations": annotations, "categories": categories})
        for entry in entries:
            path = out / "images" / entry["file_name"]
            fetch_file(f"{url}/{entry['file_name']}", path, open_image, "an image")


def commands(out: Path) -> list[str]:
    """What to run on the data set."""
    references, targets, found = (str(out / name) for name in ("references.json", "targets.json", "found"))
    segment = ["segment", "--references", references, "--images", targets, "--out", found, "--score", "0"]
    evaluate = ["evaluate", "--gt", targets, "--results", str(out / "found" / "results.json")]
    return [shlex.join(["no-time-to-train", *arguments]) for arguments in (segment, evaluate)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json-file", type=Path, default=Path("data/coco/annotations/instances_train2017.json"))
    parser.add_argument("--out", type=Path, default=Path("data/boats_and_birds"))
    parser.add_argument("--url", default=IMAGES_URL, help="where COCO's training images are")
    args = parser.parse_args()
    try:
        make(args.json_file, args.out, args.url)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(
        f"{len(REFERENCES)} references and {len(TARGETS)} targets: {args.out}. Now run", *commands(args.out), sep="\n  "
    )
    print(f"AP to expect: {AP['bbox']} (bbox), {AP['segm']} (segm)")


if __name__ == "__main__":
    main()

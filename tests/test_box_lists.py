"""FSOD-VFM's reference sets, boxes by class, become reference sets with masks and the category ids of the targets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from tests.conftest import DATA


def test_boxes_by_class_get_masks_the_ids_of_the_targets_and_become_references(tmp_path: Path) -> None:
    scene = draw_scene(np.random.default_rng(4), NOVEL_CLASSES, (90, 120))
    (tmp_path / "images" / "train").mkdir(parents=True)
    Image.fromarray(scene.image).save(tmp_path / "images" / "train" / "a.png")
    shots = {
        "star": [{"image": "CDFSOD/SET/train/a.png", "bbox": [5, 5, 40.5, 30]}],
        "disc": [{"image": "CDFSOD/SET/train/a.png", "bbox": [10, 20, 30, 30]}] * 2,
    }
    (tmp_path / "shots.json").write_text(json.dumps(shots))
    ids = {one["name"]: one["id"] for one in json.loads((DATA / "targets.json").read_text())["categories"]}
    assert [ids[name] for name in shots] != [1, 2]
    files = [
        "--image-dir",
        tmp_path / "images",
        "--categories",
        DATA / "targets.json",
        "--out",
        tmp_path / "masks.json",
    ]
    main(["boxes-to-masks", *map(str, [tmp_path / "shots.json", *files, "--nano"])])
    made = json.loads((tmp_path / "masks.json").read_text())
    assert [one["file_name"] for one in made["images"]] == ["train/a.png"]
    assert all(one["segmentation"] for one in made["annotations"])
    main(["references", "from-coco", *map(str, [tmp_path / "masks.json", tmp_path / "references.json"])])
    references = read_references(tmp_path / "references.json")
    assert {category: len(chosen) for category, chosen in references.items()} == {ids["star"]: 1, ids["disc"]: 2}

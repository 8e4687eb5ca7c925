"""Drawn scenes: an image depends on its seed only, the files are valid COCO, and objects are within their bounds."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.reference_sets import is_good_reference
from no_time_to_train.demo.scenes import (
    MAX_OBJECTS,
    MAX_SIZE,
    MIN_OBJECTS,
    MIN_SIZE,
    MIN_VISIBLE,
    NOVEL_CLASSES,
    NUM_BACKGROUNDS,
    PatternClass,
    draw_scene,
    write_coco,
)
from scripts.nano_patterns import BASE_CLASSES


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_coco(folder, NOVEL_CLASSES, 12, seed=1000)
    return folder


def test_an_image_does_not_depend_on_the_number_of_images(drawn: Path, tmp_path: Path) -> None:
    write_coco(tmp_path, NOVEL_CLASSES, 2, seed=1000)
    images = {name: data for name, data in contents(tmp_path).items() if name.endswith(".png")}
    assert images.items() <= contents(drawn).items()


def test_valid_coco(drawn: Path) -> None:
    coco = COCO(str(drawn / "instances.json"))
    assert [category["name"] for category in coco.dataset["categories"]] == [c.name for c in NOVEL_CLASSES]
    assert len(coco.imgs) == 12
    for image_id, image in coco.imgs.items():
        pixels = read_rgb(drawn / "images" / image["file_name"])
        assert pixels.shape == (image["height"], image["width"], 3)
        annotations = coco.imgToAnns[image_id]
        masks = np.stack([coco.annToMask(annotation) for annotation in annotations])
        assert masks.shape[1:] == pixels.shape[:2]
        assert masks.sum(axis=0).max() == 1, "visible parts are disjoint"
        for annotation, mask in zip(annotations, masks, strict=True):
            ys, xs = np.nonzero(mask)
            x, y, w, h = annotation["bbox"]
            assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert annotation["area"] == len(ys)
            assert annotation["iscrowd"] == 0
            assert isinstance(annotation["segmentation"]["counts"], str)
    ids = [annotation["id"] for annotation in coco.dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_every_class_can_serve_as_reference(tmp_path: Path) -> None:
    coco = COCO(str(write_coco(tmp_path, NOVEL_CLASSES, 40, seed=1002)))
    images = {category_id: set() for category_id in coco.cats}
    for annotation in coco.anns.values():
        if is_good_reference(annotation, coco):
            images[annotation["category_id"]].add(annotation["image_id"])
    assert min(map(len, images.values())) >= 5


def test_base_and_novel_classes_have_no_kind_or_name_in_common() -> None:
    assert len(NOVEL_CLASSES) >= 8
    assert not {c.kind for c in BASE_CLASSES} & {c.kind for c in NOVEL_CLASSES}
    names = [c.name for c in (*BASE_CLASSES, *NOVEL_CLASSES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("classes", [BASE_CLASSES, NOVEL_CLASSES], ids=["base", "novel"])
def test_bounds_of_objects(classes: tuple[PatternClass, ...]) -> None:
    extents, neighbors = [], 0
    for index in range(40):
        scene = draw_scene(np.random.default_rng([1003, index]), classes, (300, 400))
        assert scene.image.shape == (300, 400, 3)
        assert MIN_OBJECTS <= len(scene.labels) == len(scene.masks) <= MAX_OBJECTS
        assert scene.labels.max() < len(classes)
        assert 0 <= scene.background < NUM_BACKGROUNDS
        owner = (scene.masks * np.arange(1, len(scene.masks) + 1)[:, None, None]).sum(axis=0)
        left, right = owner[:, :-1], owner[:, 1:]
        neighbors += bool(((left != right) & (left > 0) & (right > 0)).any())
        for mask in scene.masks:
            ys, xs = np.nonzero(mask)
            extents.append(max(np.ptp(ys), np.ptp(xs)) + 1)
    assert max(extents) <= MAX_SIZE * 300 + 1
    assert max(extents) > 0.4 * 300
    assert min(extents) >= MIN_VISIBLE * MIN_SIZE * 300
    assert neighbors > 20, "objects overlap in most scenes"


def test_colors_do_not_tell_classes_apart() -> None:
    means = [[] for _ in NOVEL_CLASSES]
    for index in range(150):
        scene = draw_scene(np.random.default_rng([1004, index]), NOVEL_CLASSES, (200, 200))
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            means[label].append(scene.image[mask].mean(axis=0))
    spread = np.mean([np.std(values, axis=0).mean() for values in means])
    between = np.std([np.mean(values, axis=0) for values in means], axis=0).mean()
    assert between < 0.35 * spread

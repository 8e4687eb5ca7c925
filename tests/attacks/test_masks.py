"""Masks that hang or crash pycocotools, or that it would read wrongly."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.rle import annotation_mask, check_polygons, check_rle, decode_mask
from no_time_to_train.errors import UserError
from tests.attacks.test_cases import valid_content

COCO, LABELME = valid_content("coco"), valid_content("labelme")


def test_counts_are_decoded_as_by_pycocotools_or_refused() -> None:
    """Strings of random characters: those that pass cover the image, and pycocotools finds the same pixels."""
    rng = np.random.default_rng(0)
    refused, decoded = 0, 0
    for _ in range(3000):
        characters = rng.integers(48, 80, rng.integers(1, 5))
        rle: dict[str, Any] = {"size": [int(rng.integers(1, 4)), 4], "counts": bytes(characters.tolist()).decode()}
        try:
            check_rle(rle)
        except ValueError:
            refused += 1
            continue
        decoded += 1
        assert 0 <= int(coco_mask.area(rle)) <= rle["size"][0] * 4
        again = coco_mask.encode(np.asfortranarray(coco_mask.decode(rle)))
        assert np.array_equal(coco_mask.decode(again), coco_mask.decode(rle))
    assert refused > 100
    assert decoded > 10


@pytest.mark.parametrize("counts", ["8Z", "Z", "P", "~~", "\0"])
def test_a_record_that_would_hang_is_refused_wherever_it_is_decoded(counts: str) -> None:
    rle = {"size": [30, 40], "counts": counts}
    with pytest.raises(ValueError, match="counts"):
        decode_mask(rle)
    with pytest.raises(UserError, match="annotation 7 has no usable segmentation"):
        annotation_mask({"id": 7, "segmentation": rle}, 30, 40)


def test_runs_whose_sum_wraps_around_64_bits_are_refused() -> None:
    """A million characters: each run is longer than the last but one, and pycocotools would write outside the mask."""
    runs, total = [0, 0, 0], 0
    while total < 2**64:
        runs.append(runs[-2] + 2**29 - 1)
        total += runs[-1]
    grow = "o" * 5 + "?"  # 2**29 - 1, as the difference to the last but one
    counts = "000" + grow * (len(runs) - 3)
    with pytest.raises(ValueError, match="one that no image has"):
        check_rle({"size": [30, 40], "counts": counts})


def zigzag(points: int, height: float, width: float) -> list[list[float]]:
    """An outline that crosses the image as often as it has points."""
    return [[width * (index % 2), height * index / points] for index in range(points)]


FORMS = {
    "a.json": lambda points: json.dumps(
        {**COCO, "annotations": [{**COCO["annotations"][0], "segmentation": [[v for point in points for v in point]]}]}
    ),
    "b.json": lambda points: json.dumps({**LABELME, "shapes": [{"label": "boat", "points": points}]}),
    "a.xml": lambda points: (
        "<annotation><filename>a.png</filename><object><name>boat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox><polygon>"
        + "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(points, 1))
        + "</polygon></object></annotation>"
    ),
    "a.txt": lambda points: "0 " + " ".join(f"{x / 40} {y / 30}" for x, y in points),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_outline_that_crosses_the_image_2000_times_is_refused(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "data.yaml").write_text("names: [boat]")
    if name != "a.txt":
        (tmp_path / "data.yaml").unlink()
    (tmp_path / name).write_text(FORMS[name](zigzag(2000, 30, 40)))
    with pytest.raises(UserError, match=r"its outline is longer than 1,760 pixels") as error:
        find_references(tmp_path)
    assert name in str(error.value)


def test_an_outline_across_an_image_of_unknown_size_is_bounded(tmp_path: Path) -> None:
    """Where no size is stated, as for detectors that read images, the outline may be a million pixels long."""
    points = [value for point in zigzag(2000, 60_000, 60_000) for value in point]
    content = {**COCO, "images": [{"id": 1, "file_name": "a.png"}]}
    content["annotations"] = [{**COCO["annotations"][0], "segmentation": [points]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"annotation 1: .*longer than 1,000,000 pixels"):
        read_coco(tmp_path / "a.json")


def test_many_parts_count_together(tmp_path: Path) -> None:
    triangle = [0.0, 0.0, 40.0, 0.0, 40.0, 30.0]
    check_polygons([triangle] * 10, 30, 40)
    with pytest.raises(ValueError, match="its outline is longer"):
        check_polygons([triangle] * 100, 30, 40)


def test_the_outlines_of_noise_are_accepted() -> None:
    """The most ragged parts that a tool can trace in an image."""
    rng = np.random.default_rng(0)
    for blur in (0.5, 1, 3, 10):
        noise = cv2.GaussianBlur(rng.random((300, 400)).astype(np.float32), (0, 0), blur)
        mask = (noise > np.median(noise)).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        polygons = [contour.ravel().astype(float).tolist() for contour in contours if len(contour) > 2]
        assert sum(map(len, polygons)) > 1000
        check_polygons(polygons, 300, 400)

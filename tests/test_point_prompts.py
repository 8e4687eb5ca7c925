"""References shown by several points: from Python, the command line and LabelMe files, as by clicks in the app."""

import json
from pathlib import Path

import numpy as np
import pytest

from no_time_to_train import ReferenceSegmenter
from no_time_to_train.cli import main
from no_time_to_train.commands.reference_option import parse
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.reference_forms import Reference, find_references
from no_time_to_train.errors import UserError
from no_time_to_train.networks.box_prompts import PromptedImage
from tests.conftest import Photo
from tests.reference_folders import LABEL, labelme, write


@pytest.fixture(scope="module")
def segmenter() -> ReferenceSegmenter:
    return ReferenceSegmenter.from_pretrained("nano", device="cpu")


def places(photo: Photo) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Two points on the object and one outside it."""
    rows, columns = np.nonzero(photo.mask)
    outside = np.argwhere(~photo.mask)[0]
    return [(columns[n], rows[n]) for n in (len(rows) // 3, len(rows) // 2)], [(outside[1], outside[0])]


def test_points_give_the_mask_that_clicks_in_the_app_give(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    points, negative_points = places(photo)
    clicked, box = PromptedImage(segmenter.prompts, read_rgb(photo.path)), (5, 6, 110, 80)
    mask = segmenter.add_reference("thing", photo.path, points=points, negative_points=negative_points)
    assert np.array_equal(mask, clicked.masks(points, negative_points)[0][0])
    mask = segmenter.add_reference("thing", photo.path, box=box, negative_points=negative_points)
    assert np.array_equal(mask, clicked.masks([], negative_points, box)[0][0])
    mask = segmenter.add_reference("thing", photo.path, box=box)
    assert np.array_equal(mask, clicked.masks(box=box)[0][0])


def test_one_point_is_the_same_as_a_list_of_it(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    (first, second), _ = places(photo)
    alone = segmenter.add_reference("thing", photo.path, point=first)
    assert np.array_equal(alone, segmenter.add_reference("thing", photo.path, points=np.array([first])))
    both = segmenter.add_reference("thing", photo.path, point=first, points=[second])
    assert np.array_equal(both, segmenter.add_reference("thing", photo.path, points=[first, second]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "boat:a.jpg:point=3,4:point=5,6.5:negative_point=7,8",
            Reference("boat", Path("a.jpg"), points=((3, 4), (5, 6.5)), negative_points=((7, 8),)),
        ),
        (
            "boat:a.jpg:box=1,2,30,40:negative_point=7,8",
            Reference("boat", Path("a.jpg"), box=(1, 2, 30, 40), negative_points=((7, 8),)),
        ),
    ],
)
def test_points_on_the_command_line(text: str, expected: Reference) -> None:
    assert parse(text).reference() == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("boat:a.jpg:negative_point=7,8", "--reference boat:a.jpg: .*give a point on the object or a box as well"),
        ("boat:a.jpg:mask=whole:point=7,8", "--reference boat:a.jpg: a point is used without a mask"),
        ("boat:a.jpg:point=7,8:point=9", "--reference .*: point needs 2 numbers in pixels, not '9'"),
        ("boat:a.jpg:box=1,2,3,4:box=1,2,3,4", "--reference .*: write LABEL:IMAGE"),
    ],
)
def test_points_that_do_not_go_together_are_explained(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse(text).reference()


def test_points_of_one_group_in_a_labelme_file_are_one_object(photo: Photo, tmp_path: Path) -> None:
    labelme("point")(tmp_path, photo)
    content = json.loads((tmp_path / "a.json").read_text())
    point = {"label": LABEL, "shape_type": "point", "group_id": 4, "points": [[50, 40]]}
    content["shapes"] = [point, content["shapes"][0], {**point, "points": [[52, 41]]}]
    write(tmp_path / "a.json", json.dumps(content))
    grouped, alone = find_references(tmp_path).references
    assert grouped.points == ((50, 40), (52, 41))
    assert len(alone.points) == 1


def test_the_page_of_references_says_which_prompts_made_a_mask(photo: Photo, tmp_path: Path) -> None:
    (x1, y1), (x2, y2) = places(photo)[0]
    main([
        "segment", "--nano", "--device", "cpu", "--check-references", "--out", str(tmp_path / "out"),
        "--reference", f"thing:{photo.path}:point={x1},{y1}:point={x2},{y2}:negative_point=1,1",
    ])  # fmt: skip
    page = (tmp_path / "out/references.html").read_text()
    assert "mask made from 2 points and 1 negative point" in page

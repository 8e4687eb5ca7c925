"""References without a mask: the object is found in the images, from the folder of references to the page."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train import ReferenceSegmenter, UserError
from no_time_to_train.analysis.recurring import Picture, choose_recurring, salience_of
from no_time_to_train.cli import main
from no_time_to_train.commands.reference_option import parse
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.reference_forms import Reference, find_references
from tests.conftest import Capture, Photo, iou, nano_segmenter, write_picture
from timing.image_prompts import Drawn, draw_picture

POINTS = 16
SEEDS = [[1001, 5, number, 77] for number in range(3)]
NONE = torch.zeros(0, 3)
NANO = ["--nano", "--points-per-side", str(POINTS), "--device", "cpu"]


@pytest.fixture(scope="module")
def pictures() -> list[Drawn]:
    """Three pictures of crosses among other objects. In the first, another object is more salient."""
    return [draw_picture(np.random.default_rng(seed), 5) for seed in SEEDS]


@pytest.fixture(scope="module")
def refs(pictures: list[Drawn], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures as a class folder without masks."""
    folder = tmp_path_factory.mktemp("refs")
    for number, picture in enumerate(pictures):
        write_picture(picture.image, folder / "crosses" / f"{number}.png")
    return folder


@pytest.fixture
def segmenter() -> ReferenceSegmenter:
    return nano_segmenter(POINTS)


@pytest.fixture(scope="module")
def found(refs: Path) -> list[Reference]:
    """The pictures with the masks that were found in them together."""
    return nano_segmenter(POINTS).find_masks(find_references(refs).references)


def square(top: int, left: int, side: int) -> torch.Tensor:
    """The logits of a square on a map of 16 x 16."""
    logits = torch.full((16, 16), -1.0)
    logits[top : top + side, left : left + side] = 1
    return logits


def picture_of(*proposals: tuple[torch.Tensor, list[float], float]) -> Picture:
    """A picture of proposals, each a mask, a vector and its salience."""
    logits, vectors, salience = zip(*proposals, strict=True)
    lengths = torch.tensor(vectors, dtype=torch.float32).norm(dim=1, keepdim=True)
    return Picture(torch.tensor(vectors) / lengths, torch.tensor(salience), torch.stack(logits))


def test_what_is_large_central_and_off_the_border_is_salient_and_what_looks_like_the_border_is_less() -> None:
    for better, worse in (
        (square(4, 4, 8), square(6, 6, 4)),  # larger
        (square(5, 5, 6), square(1, 1, 6)),  # central
        (square(1, 1, 5), torch.ones(16, 16)),  # not what the border shows
    ):
        salience = salience_of((torch.stack([worse, better]) > 0).float(), torch.ones(2), torch.eye(3)[:2])
        assert salience[1] > salience[0]
    frame = torch.ones(16, 16)
    frame[1:-1, 1:-1] = -1
    regions = (torch.stack([frame, square(4, 2, 5), square(4, 9, 5)]) > 0).float()
    salience = salience_of(regions, torch.ones(3), torch.tensor([[1.0, 0], [0.9, 0.436], [0, 1]]))
    assert salience[2] > salience[1] > salience[0] == 0


def test_a_choice_is_doubtful_where_another_region_is_nearly_as_likely() -> None:
    def choose(salience: float, elsewhere: torch.Tensor) -> bool:
        picture = picture_of((square(0, 0, 6), [1, 0, 0], 1.0), (elsewhere, [0, 1, 0], salience))
        return choose_recurring([picture], NONE)[0].doubtful

    assert choose(0.9, square(9, 9, 6))
    assert not choose(0.5, square(9, 9, 6))
    assert not choose(0.9, square(0, 0, 5))  # a part of the same object


def test_the_recurring_object_of_several_pictures_is_found(
    segmenter: ReferenceSegmenter, refs: Path, pictures: list[Drawn], found: list[Reference]
) -> None:
    for one, picture in zip(found, pictures, strict=True):
        assert iou(one.read_mask(), picture.mask) > 0.8
    assert iou(segmenter.add_reference("crosses", pictures[0].image), pictures[0].mask) < 0.5  # alone

    segmenter.memory = None
    segmenter.add_reference("crosses", pictures[2].image, mask=pictures[2].mask)
    found_later = segmenter.add_reference("crosses", pictures[0].image)
    assert iou(found_later, pictures[0].mask) > 0.8, "it is compared with the references of its class"


def test_guided_prompts_and_tiles_do_not_change_what_is_found(
    segmenter: ReferenceSegmenter, pictures: list[Drawn]
) -> None:
    expected = segmenter.add_reference("crosses", pictures[2].image)
    segmenter.memory = None
    segmenter.segmenter.settings = replace(segmenter.segmenter.settings, prompts="guided", tiles=2)
    assert (segmenter.add_reference("crosses", pictures[2].image) == expected).all()


def test_a_whole_image_can_be_the_object(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    mask = segmenter.add_reference("thing", photo.path, mask="whole")
    assert mask.shape == photo.mask.shape
    assert mask.all()
    segmenter.add_reference("thing", photo.path, mask=np.ones(photo.mask.shape, bool))
    assert torch.equal(*segmenter.memory.vectors)
    _, read = parse(f"thing:{photo.path}:mask=whole").reference().read()
    assert read.all()


def test_a_doubtful_object_is_said_in_one_line_that_names_the_picture(
    pictures: list[Drawn], tmp_path: Path, capsys: Capture
) -> None:
    """Two equal objects: the picture next to its mirror image."""
    twice = np.hstack([pictures[1].image, pictures[1].image[:, ::-1]])
    Image.fromarray(twice).save(tmp_path / "twice.png")
    words = ["--reference", f"crosses:{tmp_path / 'twice.png'}", "--out", str(tmp_path / "out"), *NANO]
    main(["segment", "--check-references", *words])
    (note,) = re.findall("^note: .*$", capsys.readouterr().err, re.MULTILINE)
    assert f"{tmp_path / 'twice.png'}: it is doubtful which object is meant" in note
    assert '<span class="doubtful">doubtful</span>' in (tmp_path / "out" / "references.html").read_text()


def test_a_picture_in_which_nothing_is_proposed_is_explained(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    segmenter.segmenter.proposer.pred_iou_thresh = 2.0
    with pytest.raises(UserError, match="no object was found in the picture: give its mask, a box or a point"):
        segmenter.add_reference("thing", photo.path)
    with pytest.raises(UserError, match=r"reference .*photo\.png \(thing\): no object was found"):
        segmenter.add_references([Reference("thing", photo.path)])


def test_the_page_shows_what_a_run_takes_for_the_object(refs: Path, found: list[Reference], tmp_path: Path) -> None:
    main(["segment", "--check-references", "--references", str(refs), "--out", str(tmp_path / "out"), *NANO])
    page = (tmp_path / "out" / "references.html").read_text()
    assert page.count("object found in the picture, the next region is") == 3
    for picture, one in zip(re.findall('base64,([^"]+)"', page), found, strict=True):
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        image, mask = one.read()
        changed = np.abs(shown[..., ::-1].astype(int) - image).max(axis=2) > 40
        outside = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) == 0
        assert changed[mask].mean() > 5 * changed[outside].mean()


def test_a_run_keeps_the_memory_of_the_masks_that_were_found(
    segmenter: ReferenceSegmenter, refs: Path, found: list[Reference], tmp_path: Path
) -> None:
    main(["segment", "--references", str(refs), "--save-memory", str(tmp_path / "crosses.memory"), *NANO])
    for one in found:
        segmenter.add_reference(one.label, *one.read())
    assert torch.equal(load_memory(tmp_path / "crosses.memory").vectors, segmenter.memory.vectors)


def test_a_folder_of_plain_pictures_may_be_next_to_one_with_masks(refs: Path, photo: Photo, tmp_path: Path) -> None:
    write_picture(np.asarray(Image.open(photo.path)), tmp_path / "marked" / "a.png", tmp_path / "plain" / "a.png")
    write_picture(photo.mask, tmp_path / "marked" / "a_mask.png")
    found = find_references(tmp_path)
    assert found.form == "one folder per class"
    assert [(one.label, one.is_unmarked) for one in found.references] == [("marked", False), ("plain", True)]

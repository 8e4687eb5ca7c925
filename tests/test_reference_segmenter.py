"""The method from Python: references in every form that an image can have, and the results."""

import inspect
import io
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

import no_time_to_train
from no_time_to_train import Instances, ReferenceSegmenter, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_forms import Reference
from no_time_to_train.data.reference_image import decode_picture
from no_time_to_train.data.rle import annotation_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.errors import UserNotice
from no_time_to_train.method.settings import CONTEXT_RATIO
from no_time_to_train.networks.registry import default_context_ratio
from no_time_to_train.pipeline.summary import Thresholds
from tests.attacks.test_cases import cases_in, says
from tests.conftest import (
    DATA,
    Arguments,
    Capture,
    Checkpoints,
    Patch,
    Photo,
    assert_same_results,
    results,
)

COARSE = Settings(points_per_side=8)


@pytest.fixture
def segmenter(nano_checkpoints: Checkpoints) -> ReferenceSegmenter:
    """The seeded networks with an empty memory."""
    return ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", settings=COARSE)


def same(ours: Instances, theirs: Instances) -> bool:
    return ours.to_coco() == theirs.to_coco()


def test_a_reference_finds_instances_with_label_score_box_and_mask(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    segmenter.add_reference("café", photo.path, mask=photo.mask_path)
    found = segmenter.segment(photo.path, threshold=0.0)
    assert len(found) > 0
    for instance in found:
        assert instance.label == "café"
        assert 0 < instance.score <= 1
        assert instance.mask.dtype == bool
        assert instance.mask.shape == photo.mask.shape
        rows, columns = np.nonzero(instance.mask)
        assert instance.box == (columns.min(), rows.min(), columns.max(), rows.max())
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert [one.score for one in segmenter.segment(photo.path, threshold=found[0].score)] == [found[0].score]


def test_the_stages_and_this_class_give_the_same_results(
    segmenter: ReferenceSegmenter, memory: Path, arguments: Arguments, tmp_path: Path
) -> None:
    """On the test data, with references added one by one and with the memory of the stages."""
    main(arguments(tmp_path))
    staged = load_memory(memory)

    coco = read_coco(DATA / "references.json")
    for class_index, category in enumerate(staged.categories):
        for shot in (staged.sources[index] for index in staged.references_of(class_index)):
            annotation = coco.anns[shot["ann_ids"][0]]
            image = read_rgb(DATA / "images" / coco.imgs[shot["img_id"]]["file_name"])
            x, y, w, h = annotation["bbox"]
            mask = annotation_mask(annotation, *image.shape[:2])
            segmenter.add_reference(category.name, image, mask=mask, box=(x, y, x + w, y + h))
    torch.testing.assert_close(segmenter.memory.prototypes, staged.prototypes, atol=1e-5, rtol=0)
    segmenter.renumber({category.name: category.id for category in staged.categories})
    assert segmenter.memory.categories == staged.categories
    assert segmenter.made_with == staged.made_with

    segmenter.memory = None
    segmenter.load_memory(memory)
    targets = read_coco(DATA / "targets.json")
    found = []
    for image_id, entry in targets.imgs.items():
        found += segmenter.segment(DATA / "images" / entry["file_name"], threshold=0.0).to_coco(image_id)
    assert_same_results(found, json.loads(results(tmp_path)))


def test_paths_arrays_tensors_and_pil_images_are_the_same_image(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    pixels = read_rgb(photo.path)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    segmenter.add_reference("thing", pixels, mask=photo.mask)
    foreign = (pixels.astype(np.uint16) * 257).astype(">u2")
    forms: list[Any] = [str(photo.path), Image.open(photo.path), pixels, foreign, tensor, tensor.float() / 255]
    expected, *others = segmenter.segment(forms, threshold=0.0)
    assert len(others) == 5
    assert all(same(other, expected) for other in others)
    assert same(segmenter.segment(tensor[None], threshold=0.0)[0], expected)


def test_instances_go_to_coco_supervision_and_a_picture(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    found = segmenter.segment(photo.path, threshold=0.0)
    records = found.to_coco(image_id=7)
    for record, instance in zip(records, found, strict=True):
        assert record["image_id"] == 7
        assert (rle.decode(record["segmentation"]).astype(bool) == instance.mask).all()
    detections = found.to_supervision()
    assert detections.mask.shape == (len(found), *photo.mask.shape)
    assert detections.data["class_name"].tolist() == ["thing"] * len(found)
    picture = found.plot()
    assert picture.size == Image.open(photo.path).size
    assert (np.asarray(picture) != found.image).any()
    assert len(found[:1].to_supervision()) == 1
    assert len(found[:0].to_supervision()) == 0


def test_a_class_is_added_to_a_memory_without_the_images_of_the_others(
    segmenter: ReferenceSegmenter, photo: Photo, tmp_path: Path
) -> None:
    segmenter.add_reference("one", photo.path, mask=photo.mask_path)
    segmenter.save_memory(tmp_path / "one.memory")
    segmenter.memory = None
    segmenter.add_reference("two", photo.path, mask=~photo.mask)
    segmenter.load_memory(tmp_path / "one.memory")
    segmenter.load_memory(tmp_path / "one.memory")
    assert [category.name for category in segmenter.memory.categories] == ["two", "one"]
    assert segmenter.memory.counts.tolist() == [1, 2]


@pytest.mark.parametrize("case", cases_in("prompts"))
def test_a_mistake_in_a_reference_is_explained(
    segmenter: ReferenceSegmenter, photo: Photo, case: dict[str, Any]
) -> None:
    prompt = case["prompt"]
    if isinstance(prompt.get("mask"), list):
        prompt = {"mask": np.array(prompt["mask"])}
    with pytest.raises(UserError) as error:
        segmenter.add_reference("thing", photo.path, **prompt)
    assert says(case["refused"], str(error.value))
    assert segmenter.memory is None


@pytest.mark.parametrize("label", ["", " \n", None, 3, b"boat", "bo\ud800at", "bo\0at", "\ufeff"])
def test_a_label_is_text(segmenter: ReferenceSegmenter, photo: Photo, label: Any) -> None:
    with pytest.raises(UserError, match=f"the label {re.escape(repr(label))} is not the name of a class"):
        segmenter.add_reference(label, photo.path, mask=photo.mask_path)
    segmenter.add_reference(" boat\n", photo.path, mask=photo.mask_path)
    assert segmenter.classes == ["boat"]


def test_a_class_has_one_name_however_its_accents_are_encoded(
    segmenter: ReferenceSegmenter, photo: Photo, tmp_path: Path
) -> None:
    typed, on_a_mac = "caf\u00e9", "cafe\u0301"
    for label in (on_a_mac, typed):
        segmenter.add_reference(label, photo.path, mask=photo.mask_path)
    assert segmenter.classes == [typed]
    assert len(segmenter.segment(photo.path, threshold={on_a_mac: 1.0})) == 0
    thresholds = Thresholds.parse(0.5, [f"{on_a_mac}=0.9"])
    thresholds.check_names([typed])
    assert thresholds.of(typed) == 0.9
    bank = segmenter.memory
    save_memory(replace(bank, categories=[replace(bank.categories[0], name=on_a_mac)]), tmp_path / "older.memory")
    segmenter.load_memory(tmp_path / "older.memory")
    assert (segmenter.classes, len(segmenter.memory)) == ([typed], 4)
    segmenter.remove(on_a_mac)
    assert segmenter.memory is None


@pytest.mark.parametrize(
    ("change", "value", "refused"),
    [
        (torch.set_default_dtype, torch.float64, "torch's default dtype is torch.float64: call"),
        (torch.set_default_device, "meta", "torch's default device is meta: call"),
    ],
)
def test_defaults_of_torch_with_which_networks_do_not_compute_are_named(
    segmenter: ReferenceSegmenter, photo: Photo, change: Callable[[Any], None], value: Any, refused: str
) -> None:
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    try:
        change(value)
        for method, given in ((segmenter.segment, ()), (segmenter.add_reference, ("other",))):
            with pytest.raises(UserError, match=refused):
                method(*given, photo.path)
        with pytest.raises(UserError, match=refused):
            ReferenceSegmenter.from_pretrained("nano")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


@pytest.mark.parametrize("image", [None, 5, [None], [["photo.jpg"]]])
def test_what_is_no_image_is_refused(segmenter: ReferenceSegmenter, photo: Photo, image: Any) -> None:
    with pytest.raises(UserError, match="is not an image"):
        segmenter.add_reference("thing", image, mask=photo.mask_path)
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    with pytest.raises(UserError, match="is not an image: give a path"):
        segmenter.segment(image)


def test_a_pil_image_whose_file_is_cut_off_is_refused(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    content = photo.path.read_bytes()
    for name, others in (("image", {"box": (10, 10, 60, 60)}), ("mask", {"image": photo.path})):
        options: dict[str, Any] = {**others, name: Image.open(io.BytesIO(content[: len(content) // 2]))}
        with pytest.raises(UserError, match="image that was given cannot be read"):
            segmenter.add_reference("thing", **options)


@pytest.mark.parametrize("content", [b"JPEG", io.BytesIO(b"JPEG")])
def test_the_bytes_of_a_file_are_refused_as_what_they_are(
    segmenter: ReferenceSegmenter, photo: Photo, content: Any
) -> None:
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    with pytest.raises(UserError, match=f"an object of type {type(content).__name__} is not an image"):
        segmenter.segment(content)
    with pytest.raises(UserError, match=f"images is one {type(content).__name__}"):
        segmenter.segment_many(content)


@pytest.mark.parametrize(
    ("method", "options", "refused"),
    [
        ("propose", {"boxes": "text"}, "boxes are n times x1, y1, x2, y2"),
        ("propose", {"boxes": np.ones((4, 5))}, "boxes are n times x1, y1, x2, y2"),
        ("propose", {"boxes": {}}, "boxes are n times x1, y1, x2, y2"),
        ("propose", {"boxes": 5}, "boxes are n times x1, y1, x2, y2"),
        ("propose", {"boxes": [[1, 1, 9, 9]], "scores": "good"}, "scores n numbers from 0 to 1"),
        ("add_reference", {"label": "thing", "box": [10**400] * 4}, "is not x1, y1, x2, y2"),
        ("add_reference", {"label": "thing", "negative": "no"}, "negative must be bool"),
        ("explain", {"truth": "thing"}, r"truth must be several times \(label, mask\), not 't'"),
        ("explain", {"truth": [("thing", [[1]])]}, "an object of type list is not an image"),
        ("explain", {"truth": [("thing", np.ones((2, 3)))]}, "the mask is 3x2 pixels, its image"),
        ("classify", {"proposals": "photo.jpg"}, "proposals must be ImageProposals"),
        ("propose_each", {"images": ["photo.jpg"]}, r"\(image, name, image_id\), not 'photo.jpg'"),
        ("add_references", {"references": ["photo.jpg"]}, "references must be Reference, not 'photo.jpg'"),
        ("measure_references", {"references": 5}, "references must be Iterable, not 5"),
        ("remove_reference", {"number": "1"}, "the memory has no reference 1: it has 1"),
        ("set_memory", {"memory": "a.memory"}, "memory must be"),
        ("load_memory", {"path": 5}, "5 is not a path"),
        ("load_memory", {"path": "a" * 5000}, "memory not found"),
        ("save_memory", {"path": "a\0b"}, "cannot be written"),
        ("renumber", {"ids": "thing"}, "ids must be dict"),
        *(
            ("renumber", {"ids": {"thing": one}}, "the id of 'thing' must be a whole number")
            for one in (1.5, 3.0, float("nan"), True, "3", 2**63, -(2**63) - 1, None, torch.tensor(3))
        ),
        ("renumber", {"ids": {"thing": 5, "other": 5}}, "ids: two classes have the same id"),
        ("propose", {"boxes": torch.tensor([[1 + 1j, 1, 9, 9]])}, "boxes are n times"),
        ("propose", {"boxes": np.ma.array([[1, 1, 9, 9]], mask=[[0, 0, 0, 1]])}, "boxes are n times"),
        ("propose", {"name": np.ones(2)}, "name must be"),
        ("add_reference", {"label": "thing", "points": np.array(5)}, r"points \[\(x, y\), ...\] must be Iterable"),
        ("add_references", {"references": torch.tensor(5)}, "references must be Iterable"),
        ("measure_references", {"references": np.array(5)}, "references must be Iterable"),
        ("propose_each", {"images": np.array(5)}, "images must be Iterable"),
        ("explain", {"truth": np.array(5)}, "truth must be Iterable"),
        ("explain", {"truth": [], "threshold": {"thing": 0.5}}, "threshold must be a number"),
        ("track", {"video": np.array(5)}, "video must be Iterable"),
        ("track", {"video": ""}, "video is empty"),
        ("add_names", {"labels": 5}, "labels must be"),
    ],
)
def test_an_argument_of_a_wrong_type_is_a_user_error(
    segmenter: ReferenceSegmenter, photo: Photo, method: str, options: dict[str, Any], refused: str
) -> None:
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    image = {"image": photo.path} if method in ("propose", "add_reference", "explain") else {}
    with pytest.raises(UserError, match=refused):
        list(getattr(segmenter, method)(**image, **options))


@pytest.mark.parametrize("score", [5, -0.1, float("nan"), None, "0.5", np.ones(2)])
def test_a_score_is_a_number_from_0_to_1(segmenter: ReferenceSegmenter, photo: Photo, score: Any) -> None:
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    with pytest.raises(UserError, match=r"threshold must be a number \(0 to 1\), not "):
        segmenter.segment(photo.path, threshold=score)


def test_a_box_may_be_an_array_and_reach_over_the_border(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    rows, columns = np.nonzero(photo.mask)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    for form in (box, torch.from_numpy(box).float(), box.tolist(), np.array([-5.0, -5, 500, 500])):
        assert segmenter.add_reference("thing", photo.path, mask=photo.mask, box=form).any()


def test_a_box_stands_for_a_mask_outside_it(segmenter: ReferenceSegmenter, photo: Photo, monkeypatch: Patch) -> None:
    elsewhere = np.zeros((1, *photo.mask.shape), bool)
    elsewhere[0, :5, :5] = True
    monkeypatch.setattr(segmenter, "prompts", lambda image, boxes: elsewhere)
    mask = segmenter.add_reference("thing", photo.path, box=(60, 50, 70, 65))
    expected = np.zeros_like(mask)
    expected[50:65, 60:70] = True
    assert (mask == expected).all()


def test_many_images_are_segmented_one_after_the_other(
    segmenter: ReferenceSegmenter, photo: Photo, tmp_path: Path, capsys: Capture
) -> None:
    with pytest.raises(UserError, match="the memory is empty"):
        segmenter.segment_many([photo.path])  # at once, not when the first image is asked for
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    with pytest.raises(UserError, match="threshold"):
        segmenter.segment_many([photo.path], threshold=5)
    for one in (str(photo.path), photo.path, Image.open(photo.path), read_rgb(photo.path), None):
        with pytest.raises(UserError, match=rf"images is one {type(one).__name__}: give a list of images"):
            segmenter.segment_many(one)  # type: ignore[arg-type]
    read = []
    images = (read.append(number) or photo.path for number in range(3))
    found = segmenter.segment_many(images, threshold=0.0)
    assert same(next(found), segmenter.segment(photo.path, threshold=0.0))
    assert read == [0, 1]  # the networks work on the next image
    assert [instances.path for instances in found] == [photo.path, photo.path]
    assert "image/s" in capsys.readouterr().err
    assert len(list(segmenter.segment_many([photo.path], progress=False))) == 1
    assert not capsys.readouterr().err


def test_cut_outs_are_described_alike_at_any_margin(
    segmenter: ReferenceSegmenter, photo: Photo, tmp_path: Path
) -> None:
    rows, columns = np.nonzero(photo.mask)
    close = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    vectors = []
    for number, (place, outside) in enumerate([((slice(None),) * 2, 0), (close, 255)]):
        pixels = np.where(photo.mask[..., None], read_rgb(photo.path), outside).astype(np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.dstack([pixels, 255 * photo.mask.astype(np.uint8)])[place]).save(path)
        segmenter.memory = None
        segmenter.add_reference("thing", path, mask=path)
        vectors.append(segmenter.memory.vectors[0])
    assert vectors[0].equal(vectors[1])
    _, shown = decode_picture(segmenter.memory.crops[0])
    assert max(shown.any(1).sum(), shown.any(2).sum()) / shown.shape[1] == pytest.approx(1 / 3, abs=0.02)
    segmenter.memory = None
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    assert torch.cosine_similarity(vectors[0], segmenter.memory.vectors[0], dim=0) > 0.6
    with pytest.raises(UserError, match="cut-outs cannot be measured"):
        segmenter.measure_references([Reference("thing", path, path), Reference("thing", path, path)])


def test_a_notice_says_that_an_image_reached_the_limit(nano_checkpoints: Checkpoints, photo: Photo) -> None:
    settings = Settings(points_per_side=8, max_instances=1)
    segmenter = ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", settings=settings)
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    with pytest.warns(UserNotice, match=r"has 1 instance, the most that are returned.*max_instances"):
        segmenter.segment(photo.path, threshold=0.01)


def test_a_pickled_segmenter_finds_the_same(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    segmenter.add_reference("thing", photo.path, box=(10, 10, 60, 60))
    again = pickle.loads(pickle.dumps(segmenter))
    assert again.segment(photo.path, 0).to_coco() == segmenter.segment(photo.path, 0).to_coco()
    again.add_reference("box", photo.path, box=(20, 20, 60, 60))
    assert again.classes == [*segmenter.classes, "box"]


def test_a_forked_process_finds_the_same(photo: Photo) -> None:
    code = f"""
import os
from tests.conftest import nano_segmenter
segmenter = nano_segmenter(4)
segmenter.add_reference("thing", {str(photo.path)!r}, {str(photo.mask_path)!r})
scores = segmenter.segment({str(photo.path)!r}, threshold=0).scores
if os.fork() == 0:
    print(abs(segmenter.segment({str(photo.path)!r}, threshold=0).scores - scores).max() < 1e-4, flush=True)
    os._exit(0)
os.wait()
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "True\n", ended.stderr


def test_a_copy_shares_the_networks_and_not_the_memory(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    found, other = segmenter.segment(photo.path, 0.0), copy(segmenter)
    other.memory = None
    for label in ("first", "second"):
        other.add_reference(label, photo.path, box=(10, 10, 60, 60))
    assert (segmenter.classes, other.classes) == (["thing"], ["first", "second"])
    assert same(segmenter.segment(photo.path, 0.0), found)
    other.memory = segmenter.memory
    assert same(other.segment(photo.path, 0.0), found)
    with pytest.raises(UserError, match="memory must be"):
        other.memory = "boats.memory"  # type: ignore[assignment]


def test_a_threshold_counts_for_the_classes_that_are_known_when_an_image_is_asked_for(
    segmenter: ReferenceSegmenter, photo: Photo
) -> None:
    segmenter.add_reference("other", photo.path, box=(10, 10, 60, 60))
    found = segmenter.segment_many([photo.path] * 4, threshold=0.0, progress=False)
    next(found)
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    segmenter.remove("other")
    assert same(list(found)[-1], segmenter.segment(photo.path, threshold=0.0))


def test_a_renumbered_memory_can_be_saved_and_names_that_it_lacks_keep_their_ids(
    segmenter: ReferenceSegmenter, photo: Photo, tmp_path: Path
) -> None:
    for label in ("one", "two"):
        segmenter.add_reference(label, photo.path, mask=photo.mask_path)
    segmenter.renumber({"two": np.int64(7), "not shown": np.uint8(8)})  # type: ignore[dict-item]
    segmenter.save_memory(tmp_path / "a.memory")
    loaded = load_memory(tmp_path / "a.memory").categories
    assert [(category.id, category.name) for category in loaded] == [(7, "two"), (9, "one")]


def test_boxes_may_be_a_tensor_that_needs_a_gradient(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    boxes = torch.tensor([[10.0, 10, 60, 60]], requires_grad=True)
    found = segmenter.propose(photo.path, boxes=boxes)  # type: ignore[arg-type]
    assert len(found) == len(segmenter.propose(photo.path, boxes=[[10, 10, 60, 60]])) > 0


@pytest.mark.parametrize("value", ["false", 1, None, np.ones(2)])
def test_settings_are_true_or_false(value: Any) -> None:
    with pytest.raises(UserError, match="multimask must be true or false"):
        Settings(multimask=value)
    assert not Settings(multimask=np.False_).multimask  # type: ignore[arg-type]


def test_settings_name_a_choice_that_does_not_exist() -> None:
    for wrong in ({"prompts": "Guided"}, {"pooling": None}, {"output_box": "box"}, {"score": np.ones(2)}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))} must be one of"):
            Settings(**wrong)  # type: ignore[arg-type]


def test_classes_are_listed_and_removed(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    assert segmenter.classes == []
    for label in ("one", "two", "one"):
        segmenter.add_reference(label, photo.path, mask=photo.mask_path)
    assert segmenter.classes == ["one", "two"]
    with pytest.raises(UserError, match="the memory has no class 'tow'; did you mean 'two'"):
        segmenter.remove("tow")
    segmenter.remove("one")
    assert segmenter.classes == ["two"]
    assert {instance.label for instance in segmenter.segment(photo.path, threshold=0.0)} <= {"two"}
    segmenter.remove("two")
    assert segmenter.classes == []
    with pytest.raises(UserError, match="the memory has no class 'two'"):
        segmenter.remove("two")


def test_the_memory_without_one_reference_is_that_of_the_others(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    segmenter.add_reference("cup", photo.path, photo.mask)
    before = segmenter.memory
    segmenter.add_reference("cup", photo.path, ~photo.mask)
    segmenter.remove_reference(1)
    assert segmenter.memory.vectors.equal(before.vectors)
    assert segmenter.segmenter.prototypes.equal(before.prototypes)  # type: ignore[arg-type]


def test_a_class_goes_with_its_last_positive_reference(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    for label, negative in (("cup", False), ("coin", False), ("cup", True)):
        segmenter.add_reference(label, photo.path, photo.mask, negative=negative)
    segmenter.remove_reference(0)
    assert segmenter.classes == ["coin"]
    assert len(segmenter.memory or []) == 1
    segmenter.remove_reference(0)
    assert segmenter.memory is None
    with pytest.raises(UserError, match="add a reference or load a memory first"):
        segmenter.segment(photo.path)
    with pytest.raises(UserError, match="no reference 0: it has 0"):
        segmenter.remove_reference(0)


def test_a_memory_that_other_weights_of_the_encoder_made_is_refused(
    segmenter: ReferenceSegmenter, nano_checkpoints: Checkpoints, photo: Photo, memory: Path, tmp_path: Path
) -> None:
    weights = torch.load(nano_checkpoints[1])
    weights["norm.weight"] *= 1.1
    torch.save(weights, tmp_path / "trained_further.pth")
    other = ReferenceSegmenter.from_pretrained(nano_checkpoints[0], f"dinov2_nano={tmp_path / 'trained_further.pth'}")
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    segmenter.save_memory(tmp_path / "thing.memory")
    for path in (tmp_path / "thing.memory", memory):
        with pytest.raises(UserError, match=r"was made with encoder_weights '\w{16}', this run has '\w{16}'"):
            other.load_memory(path)


def test_the_context_ratio_belongs_to_the_encoder_and_to_the_memory(
    segmenter: ReferenceSegmenter, nano_checkpoints: Checkpoints, photo: Photo, tmp_path: Path
) -> None:
    assert segmenter.made_with["context_ratio"] == 4
    assert default_context_ratio("dinov2_large") == CONTEXT_RATIO == 0.2
    other = ReferenceSegmenter(segmenter.segmenter, segmenter.prompts, "dinov2_nano", context_ratio=0.5)
    for one in (segmenter, other):
        one.add_reference("thing", photo.path, mask=photo.mask_path)
    assert not torch.equal(segmenter.memory.vectors, other.memory.vectors)
    other.save_memory(tmp_path / "other.memory")
    with pytest.raises(UserError, match=r"made with context_ratio 0\.5, this run has 4\.0"):
        segmenter.load_memory(tmp_path / "other.memory")
    for wrong in (-0.1, float("nan"), float("inf"), "4"):
        with pytest.raises(UserError, match=r"context_ratio must be a number \(0 to 100\), not "):
            ReferenceSegmenter.from_pretrained(*nano_checkpoints, context_ratio=wrong)


@pytest.mark.parametrize("name", ["sam2", "dinov2"])
@pytest.mark.parametrize("value", ["", False, 0, [], np.ones(2)])
def test_what_names_no_network_is_not_taken_for_the_default(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"no network is called ''|a network must be"):
        ReferenceSegmenter.from_pretrained(**{"sam2": "nano", name: value})


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("sam2_hiera_lagre",), "no network is called 'sam2_hiera_lagre'; did you mean 'sam2_hiera_large'"),
        (("nano", "dinov2"), "no network is called 'dinov2'"),
    ],
)
def test_an_unknown_network_is_explained(names: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        ReferenceSegmenter.from_pretrained(*names)


README_EXAMPLE = re.findall(r"```python\n(.*?)```", (DATA.parents[1] / "README.md").read_text("utf-8"), re.DOTALL)
HELP_EXAMPLE = re.findall(r"::\n\n((?: {8,}.*\n|\n)+)", inspect.getdoc(ReferenceSegmenter) + "\n")


@pytest.mark.parametrize("blocks", [README_EXAMPLE, HELP_EXAMPLE], ids=["README", "help"])
def test_the_examples_run_as_written(blocks: list[str], tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    example = "\n".join(map(textwrap.dedent, blocks))
    names = r'"sam2_hiera_large", "dinov2_vitl14"(, device="cuda")?'
    example, replaced = re.subn(names, '"nano"', example)
    assert replaced == 1
    scene = draw_scene(np.random.default_rng(4), NOVEL_CLASSES, (300, 400))
    largest = scene.masks[scene.masks.sum((1, 2)).argmax()]
    for name, pixels in (("photo.jpg", scene.image), ("ref.jpg", scene.image), ("ref_mask.png", largest)):
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("boat ") and line.endswith("(300, 400)") for line in lines)


def test_the_public_names_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, no_time_to_train as package\n"
        "assert {*package.__all__} <= {*dir(package)}\n"
        "assert package.UserError.__name__ == 'UserError'\n"
        "assert not {'torch', 'numpy', 'supervision'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in set(no_time_to_train.__all__) - {"__version__"}:
        assert getattr(no_time_to_train, name).__name__ == name
    assert re.match(r"\d+\.\d+|unknown", no_time_to_train.__version__)
    with pytest.raises(AttributeError, match="has no attribute 'Segmenter'"):
        no_time_to_train.Segmenter  # noqa: B018 (the access raises)


def test_the_segmenter_describes_itself(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    assert repr(segmenter) == "ReferenceSegmenter(sam2='sam2_nano', dinov2='dinov2_nano', device='cpu', memory=None)"
    segmenter.add_reference("thing", photo.path, mask=photo.mask_path)
    assert repr(segmenter).endswith("memory=MemoryBank({thing: 1}))")

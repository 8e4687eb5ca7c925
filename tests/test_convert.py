"""``convert`` and ``evaluate --gt``: annotations of one tool as those of another, and as ground truth."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.reference_forms import find_references
from tests.conftest import Photo
from tests.reference_folders import class_folder, image
from tests.reference_folders import yolo as yolo_folder


def masks_of(folder: Path) -> list[tuple[str, np.ndarray]]:
    found = []
    for reference in find_references(folder).references:
        mask = reference.read_mask()
        assert mask is not None
        found.append((reference.label, mask))
    return found


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "voc"])
def test_masks_are_the_same_in_every_format(form: str, photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path / "refs", photo)
    main(["convert", str(tmp_path / "refs"), "--to", form, "--out", str(tmp_path / "out")])
    ((label, mask),) = masks_of(tmp_path / "refs")
    ((again, converted),) = masks_of(tmp_path / "out" / form)
    assert again == label
    union, shared = (mask | converted).sum(), (mask & converted).sum()
    assert shared >= (0.97 if form == "yolo" else 1) * union  # YOLO polygons have no place for the last half pixel


def test_boxes_are_the_same_in_every_format(photo: Photo, tmp_path: Path) -> None:
    yolo_folder(polygon=False)(tmp_path / "refs", photo)
    expected = [reference.box for reference in find_references(tmp_path / "refs").references]
    for form in FORMATS:
        main(["convert", str(tmp_path / "refs"), "--to", form, "--out", str(tmp_path / "out")])
        found = [reference.box for reference in find_references(tmp_path / "out" / form).references]
        np.testing.assert_allclose(found, expected, atol=0.51, err_msg=form)


def test_a_result_is_never_replaced(photo: Photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folder(tmp_path / "refs", photo)
    command = ["convert", str(tmp_path / "refs"), "--to", "coco", "--out", str(tmp_path / "out")]
    main(command)
    before = (tmp_path / "out/coco/annotations.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "out/coco/annotations.json").read_bytes() == before


def test_a_file_that_breaks_leaves_no_half_data_set(photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path / "refs", photo)
    (mask,) = (tmp_path / "refs").rglob("*_mask.png")
    shutil.copy(mask.with_name(mask.name.replace("_mask", "")), mask.with_name("z.png"))
    mask.with_name("z_mask.png").write_bytes(b"broken")
    with pytest.raises(SystemExit, match="2"):
        main(["convert", str(tmp_path / "refs"), "--to", "yolo", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out/yolo").exists()


def results_of(folder: Path, photo: Photo) -> Path:
    """Results like those of ``segment``: the object of the photo, found exactly, with ids of its own."""
    image(photo, folder.parent / "photos/a.png")
    class_folder(folder.parent / "refs", photo)
    main(["convert", str(folder.parent / "refs"), "--to", "coco", "--out", str(folder.parent)])
    truth = json.loads((folder.parent / "coco/annotations.json").read_text())
    (annotation,), (category,) = truth["annotations"], truth["categories"]
    height, width = photo.mask.shape
    entry = {"id": 77, "file_name": "a.png", "height": height, "width": width, "path": "../photos/a.png"}
    record = {name: annotation[name] for name in ("bbox", "segmentation")}
    folder.mkdir()
    listed = {"images": [entry], "categories": [{"id": 9, "name": category["name"]}]}
    (folder / "images.json").write_text(json.dumps(listed))
    (folder / "results.json").write_text(json.dumps([{**record, "image_id": 77, "category_id": 9, "score": 0.9}]))
    return folder / "results.json"


@pytest.mark.parametrize("form", FORMATS)
def test_ground_truth_may_have_any_form(form: str, photo: Photo, tmp_path: Path) -> None:
    results = results_of(tmp_path / "out", photo)
    class_folder(tmp_path / "again", photo)
    for file in sorted((tmp_path / "again").rglob("*.png")):
        if not file.name.endswith("_mask.png"):
            mask = file.with_name(f"{file.stem}_mask.png")
            mask.rename(mask.with_name("a_mask.png"))
            file.rename(file.with_name("a.png"))
    main(["convert", str(tmp_path / "again"), "--to", form, "--out", str(tmp_path / "truth")])
    main(["evaluate", "--gt", str(tmp_path / "truth" / form), "--pred_json", str(results)])
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["segm"]["AP"] == pytest.approx(1, abs=0.11 if form == "yolo" else 1e-6)


def test_ground_truth_without_ids_needs_the_images_of_the_results(
    photo: Photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of(tmp_path / "out", photo)
    (tmp_path / "out/images.json").unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--gt", str(tmp_path / "refs"), "--results", str(results)])
    assert "images.json" in capsys.readouterr().err


def test_a_missing_target_is_skipped_and_named(
    photo: Photo, nano_checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folder(tmp_path / "refs", photo)
    image(photo, tmp_path / "photos/a.png")
    names = [{"id": number, "file_name": name} for number, name in enumerate(("a.png", "b.png"), start=1)]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/list.json").write_text(json.dumps({"images": names}))
    sam2, dinov2 = map(str, nano_checkpoints)
    command = [
        *("segment", "--references", str(tmp_path / "refs"), "--images", str(tmp_path / "elsewhere/list.json")),
        *("--out", str(tmp_path / "out"), "--sam2", sam2, "--dinov2", dinov2, "--device", "cpu"),
        *("--points-per-side", "4", "--threshold", "0", "--max-instances", "1"),
    ]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "--image-dir" in capsys.readouterr().err
    main([*command, "--image-dir", str(tmp_path / "photos")])
    errors = capsys.readouterr().err
    assert "skipped: image b.png" in errors
    assert "1 image with 1 instances, which is the most that --max-instances allows" in errors
    assert [entry["file_name"] for entry in json.loads((tmp_path / "out/images.json").read_text())["images"]] == [
        "a.png"
    ]
    assert Image.open(tmp_path / "out/masks/a.png").size == photo.mask.shape[::-1]

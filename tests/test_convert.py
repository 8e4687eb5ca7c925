"""``convert`` and ``evaluate --gt``: annotations of one tool as those of another, and as ground truth."""

import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.ground_truth import read_ground_truth
from no_time_to_train.data.images import as_rgb
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.reference_forms import Reference, find_references, voc_xml
from tests.conftest import Capture, Command, Patch, Photo, Refusal
from tests.reference_folders import class_folder, image, write


def test_a_result_is_never_replaced_and_a_file_that_breaks_leaves_no_half_data_set(
    photo: Photo, tmp_path: Path, refusal: Refusal
) -> None:
    class_folder(tmp_path / "refs", photo)
    command = ["convert", str(tmp_path / "refs"), "--to", "coco", "--out", str(tmp_path / "out")]
    main(command)
    before = (tmp_path / "out/coco/annotations.json").read_bytes()
    assert "exists already" in refusal(*command)
    assert (tmp_path / "out/coco/annotations.json").read_bytes() == before
    (mask,) = (tmp_path / "refs").rglob("*_mask.png")
    shutil.copy(mask.with_name(mask.name.replace("_mask", "")), mask.with_name("z.png"))
    mask.with_name("z_mask.png").write_bytes(b"broken")
    assert "z_mask.png" in refusal("convert", tmp_path / "refs", "--to", "yolo", "--out", tmp_path / "out")
    assert not (tmp_path / "out/yolo").exists()


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(photo: Photo, tmp_path: Path, monkeypatch: Patch) -> None:
    class_folder(tmp_path / "refs", photo)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    main(["convert", "~/refs", "--to", "coco", "--out=~/out"])
    assert (tmp_path / "out/coco/annotations.json").exists()
    assert not Path("~").exists()


def test_a_mask_outside_its_image_is_one_line(photo: Photo, tmp_path: Path, refusal: Refusal) -> None:
    image(photo, tmp_path / "refs/a.png")
    shape = {"label": "boat", "points": [[500, 500], [600, 500], [600, 600]]}
    (tmp_path / "refs/a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    line = refusal("convert", tmp_path / "refs", "--to", "yolo", "--out", tmp_path / "out")
    assert "a.png: a boat marks no pixel of it" in line


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


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"coco-train-val", "crops"}))
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


def test_difficult_objects_of_voc_stay_difficult(photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path / "refs", photo)
    main(["convert", str(tmp_path / "refs"), "--to", "voc", "--out", str(tmp_path)])
    (xml,) = (tmp_path / "voc/Annotations").rglob("*.xml")
    xml.write_text(xml.read_text().replace("<difficult>0<", "<difficult>1<"))
    for form in ("voc", "coco"):
        main(["convert", str(tmp_path / "voc"), "--to", form, "--out", str(tmp_path / "out")])
    assert "<difficult>1<" in next((tmp_path / "out/voc/Annotations").rglob("*.xml")).read_text()
    (truth,) = json.loads((tmp_path / "out/coco/annotations.json").read_text())["annotations"]
    assert (truth["difficult"], truth["iscrowd"]) == (1, 0)


def test_images_of_lvis_which_have_addresses_only_are_found(photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path / "refs", photo)
    main(["convert", str(tmp_path / "refs"), "--to", "coco", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "coco/annotations.json").read_text())
    del content["images"][0]["file_name"]
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/000000000009.jpg"
    (tmp_path / "lvis_v1_train.json").write_text(json.dumps(content))
    (tmp_path / "train2017").mkdir()
    Image.open(photo.path).convert("RGB").save(tmp_path / "train2017/000000000009.jpg")
    (reference,) = find_references(tmp_path / "lvis_v1_train.json").references
    assert reference.image == tmp_path / "train2017/000000000009.jpg"


@pytest.mark.parametrize("name", ["d%20e.png", "photo.HEIC"])
def test_a_name_goes_to_label_studio_and_back(name: str, photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path / "refs", photo)
    for file in sorted((tmp_path / "refs").rglob("*.png")):
        file.rename(file.with_name(f"{Path(name).stem}_mask.png" if file.name.endswith("_mask.png") else name))
    main(["convert", str(tmp_path / "refs"), "--to", "label-studio", "--out", str(tmp_path / "out")])
    (reference,) = find_references(tmp_path / "out/label-studio").references
    assert reference.image.name == name
    assert (reference.read_mask() == photo.mask).all()


@pytest.mark.parametrize("form", ["coco", "cvat", "label-studio", "labelme", "voc", "x-anylabeling", "yolo"])
def test_a_photo_with_a_tab_in_its_name_goes_to_a_tool_and_back(form: str, photo: Photo, tmp_path: Path) -> None:
    class_folder(tmp_path / "refs", photo)
    for file in sorted((tmp_path / "refs").rglob("*.png")):
        file.rename(file.with_name("a\tb_mask.png" if file.name.endswith("_mask.png") else "a\tb.png"))
    main(["convert", str(tmp_path / "refs"), "--to", form, "--out", str(tmp_path / "out")])
    (reference,) = find_references(tmp_path / "out" / form).references
    assert (reference.read_mask() == photo.mask).all()


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_photos_whose_names_become_equal_stay_two(form: str, photo: Photo, tmp_path: Path) -> None:
    for stem in ("a\tb", "a%09b"):
        class_folder(tmp_path / stem, photo)
        for file in sorted((tmp_path / stem).rglob("*.png")):
            name = f"{stem}_mask.png" if file.name.endswith("_mask.png") else f"{stem}.png"
            (tmp_path / "refs" / "boat").mkdir(parents=True, exist_ok=True)
            file.rename(tmp_path / "refs" / "boat" / name)
    main(["convert", str(tmp_path / "refs"), "--to", form, "--out", str(tmp_path / "out")])
    references = find_references(tmp_path / "out" / form).references
    assert len({reference.image for reference in references}) == 2


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, "empty.png") for form in ("coco", "cvat", "label-studio", "labelme", "voc", "yolo")),
        ("yolo", "train.png"),
    ],
)
def test_an_image_without_objects_is_written_as_well(form: str, name: str, photo: Photo, tmp_path: Path) -> None:
    """Training needs images of the background."""
    class_folder(tmp_path / "refs", photo)
    main(["convert", str(tmp_path / "refs"), "--to", "coco", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "coco/annotations.json").read_text())
    image(photo, tmp_path / "coco/images" / name)
    content["images"].append({"id": 9, "file_name": name})
    (tmp_path / "coco/annotations.json").write_text(json.dumps(content))
    for source, out in ((tmp_path / "coco", tmp_path / "out"), (tmp_path / "out" / form, tmp_path / "again")):
        main(["convert", str(source), "--to", form, "--out", str(out)])
        found = find_references(out / form)
        assert [one.name for one in found.empty] == [name]
        assert len(found.references) == 1


@pytest.mark.parametrize(
    "names",
    [
        *(("train.png", "classes.png"), ("val.png", "labels.png"), ("sub/a.png", "b.png"), ("x/a.png", "a.png")),
        *(("mask/a.png", "SegmentationClass/b.png"), ("Annotations/images/a.png", "b.png")),
    ],
)
@pytest.mark.parametrize("form", ["coco", "cvat", "voc", "yolo"])
def test_photos_with_the_names_of_side_files_and_folders_come_back(
    form: str, names: tuple[str, ...], photo: Photo, tmp_path: Path
) -> None:
    for name in names:
        image(photo, tmp_path / "in" / name)
    images = [{"id": index, "file_name": name} for index, name in enumerate(names)]
    outlines = [[[2, 2, 20, 2, 20, 20, 2, 20]], [[5, 5, 30, 5, 30, 30, 5, 30]]]
    objects = [
        {"id": index, "image_id": index, "category_id": 1, "segmentation": outline}
        for index, outline in enumerate(outlines)
    ]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    write(tmp_path / "in/a.json", json.dumps(content))
    main(["convert", str(tmp_path / "in"), "--to", form, "--out", str(tmp_path)])
    found = find_references(tmp_path / form)
    areas = sorted(int(one.read_mask().sum()) for one in find_references(tmp_path / "in").references)
    (small, first), (large, second) = sorted((int(one.read_mask().sum()), str(one.image)) for one in found.references)
    assert [small, large] == areas
    for path, name in zip((first, second), names, strict=True):
        assert Path(path.replace("images_", "images")).as_posix().endswith(f"/{name}")
    assert not found.empty


def test_masks_of_one_photo_are_not_all_in_memory_at_once(tmp_path: Path, photo: Photo, monkeypatch: Patch) -> None:
    masks: list[weakref.ref[np.ndarray]] = []
    alive = []

    def note(mask: np.ndarray) -> np.ndarray:
        alive.append(sum(one() is not None for one in masks))
        masks.append(weakref.ref(mask))
        return mask

    read, encode = Reference.read_mask, voc_xml.encode_mask
    monkeypatch.setattr(Reference, "read_mask", lambda self: note(read(self)))
    monkeypatch.setattr(voc_xml, "encode_mask", lambda mask: encode(note(mask)))
    image(photo, tmp_path / "in/a.png")
    outlines = [[[x, 2, x + 8, 2, x + 8, 20, x, 20]] for x in range(0, 100, 10)]
    objects = [{"id": x, "image_id": 1, "category_id": 1, "segmentation": one} for x, one in enumerate(outlines)]
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "thing"}]
    write(tmp_path / "in/a.json", json.dumps({"images": images, "annotations": objects, "categories": categories}))
    for source, form in (("in", "voc"), ("voc", "coco")):
        main(["convert", str(tmp_path / source), "--to", form, "--out", str(tmp_path)])
    assert len(masks) >= 30
    assert max(alive) <= 2


def test_the_reason_why_nothing_can_be_scored_is_in_the_refusal(photo: Photo, tmp_path: Path, refusal: Refusal) -> None:
    results = results_of(tmp_path / "out", photo)
    truth = json.loads((tmp_path / "coco/annotations.json").read_text())
    truth["images"][0] |= {"id": 77, "file_name": "a.png"}
    truth["categories"][0]["id"] = 9
    truth["annotations"][0] |= {"image_id": 77, "category_id": 9, "bbox": None}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (record,) = json.loads(results.read_text())
    results.write_text(json.dumps([record, {key: record[key] for key in record if key != "segmentation"}]))
    line = refusal("evaluate", "--gt", tmp_path / "truth.json", "--pred_json", results)
    assert "has no bbox. Masks are not scored: some results have none." in line


@pytest.mark.parametrize("form", ["coco", "label-studio", "labelme", "voc", "yolo"])
def test_photos_of_one_name_in_two_folders_stay_two_inside_the_result(form: str, photo: Photo, tmp_path: Path) -> None:
    """LabelMe reaches photos by "..", which is no part of a name that is written, and makes no second photo."""
    for folder in ("x", "y"):
        image(photo, tmp_path / f"set/photos/{folder}/a.png")
        shape = {"label": folder, "points": [[10, 10], [90, 10], [90, 80]]}
        content = {"shapes": [shape], "imagePath": f"../../photos/{folder}/a.png"}
        write(tmp_path / f"set/labels/{folder}/a.json", json.dumps(content))
    assert find_references(tmp_path / "set").unused == ()
    main(["convert", str(tmp_path / "set/labels"), "--to", form, "--out", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [form]
    images = [{"id": folder, "file_name": f"{folder}/a.png", "height": 1, "width": 1} for folder in ("x", "y")]
    write(tmp_path / "run/images.json", json.dumps({"images": images}))
    truth = read_ground_truth(tmp_path / "out" / form, tmp_path / "run/results.json")
    found = {one["image_id"]: truth.cats[one["category_id"]]["name"] for one in truth.anns.values()}
    assert found == {"x": "x", "y": "y"}


def test_results_whose_ids_or_images_are_not_those_of_the_ground_truth_are_not_scored_and_what_others_lack_is_said(
    photo: Photo, tmp_path: Path, refusal: Refusal, capsys: Capture
) -> None:
    results = results_of(tmp_path / "out", photo)
    truth = json.loads((tmp_path / "coco/annotations.json").read_text())
    truth["categories"].insert(0, {"id": 9, "name": "another"})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    error = refusal("evaluate", "--gt", tmp_path / "truth.json", "--results", results)
    assert "id 9 of categories is" in error
    assert "run segment with --images" in error
    (results.parent / "images.json").unlink()
    assert "images.json" in refusal("evaluate", "--gt", tmp_path / "refs", "--results", results)
    results.write_text("[]")
    main(["evaluate", "--gt", str(tmp_path / "coco/annotations.json"), "--results", str(results)])
    assert "holds no detection" in capsys.readouterr().err
    boxes = [{key: one[key] for key in ("image_id", "category_id", "bbox")} for one in truth["annotations"]]
    results.write_text(json.dumps([{**one, "score": 1} for one in boxes]))
    main(["evaluate", "--gt", str(tmp_path / "coco/annotations.json"), "--results", str(results)])
    assert "holds boxes only: masks are not scored" in capsys.readouterr().err


def test_a_missing_target_is_skipped_and_named(
    photo: Photo, nano_options: list[str], tmp_path: Path, refusal: Refusal, capsys: Capture
) -> None:
    class_folder(tmp_path / "refs", photo)
    image(photo, tmp_path / "photos/a.png")
    names = [{"id": number, "file_name": name} for number, name in enumerate(("a.png", "b.png"), start=1)]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/list.json").write_text(json.dumps({"images": names}))
    command = ["segment", "--references", str(tmp_path / "refs"), "--images", str(tmp_path / "elsewhere/list.json")]
    command += ["--out", str(tmp_path / "out"), *nano_options, "--threshold", "0", "--max-instances", "1"]
    assert "--image-dir" in refusal(*command)
    main([*command, "--image-dir", str(tmp_path / "photos")])
    errors = capsys.readouterr().err
    assert "skipped: image b.png" in errors
    assert "1 image with 1 instance, which is the most that --max-instances allows" in errors
    (entry,) = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert entry["file_name"] == "a.png"
    assert Image.open(tmp_path / "out/masks/a.png").size == photo.mask.shape[::-1]


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"coco-train-val", "crops"}))
def test_a_photo_that_was_annotated_as_stored_is_written_without_its_orientation(form: str, tmp_path: Path) -> None:
    pixels, exif = np.zeros((40, 60, 3), np.uint8), Image.Exif()
    pixels[5:15, 10:30], exif[0x0112] = 255, 6
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos/a.png", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 10]}],
        "categories": [{"id": 1, "name": "boat"}],
    }
    (tmp_path / "photos/a.json").write_text(json.dumps(content))
    main(["convert", str(tmp_path / "photos"), "--to", form, "--out", str(tmp_path)])
    (reference,) = find_references(tmp_path / form).references
    x1, y1, x2, y2 = (round(value) for value in reference.box)
    shown = as_rgb(reference.image)  # as any tool shows it
    assert shown.shape == pixels.shape
    assert shown[y1:y2, x1:x2].min() > 250
    assert shown.sum() == shown[y1:y2, x1:x2].sum()


def test_a_broken_exif_is_no_line_of_a_library(tmp_path: Path, photo: Photo, command: Command) -> None:
    class_folder(tmp_path / "refs", photo)
    (png,) = (one for one in (tmp_path / "refs").rglob("*.png") if "mask" not in one.name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(png).convert("RGB").save(png.with_suffix(".jpg"), exif=exif.tobytes()[:16])
    png.unlink()
    ended = command(["convert", str(tmp_path / "refs"), "--to", "coco", "--out", str(tmp_path / "out")])
    assert (ended.returncode, ended.stderr) == (0, "")

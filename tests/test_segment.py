"""``segment``: from references to results in one command; every output is read back by readers other than our own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from no_time_to_train.cli import main
from no_time_to_train.commands.options import check_images
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.targets import find_targets
from no_time_to_train.errors import UserNotice
from no_time_to_train_extras.video.annotated_videos import AnnotatedVideos
from tests.conftest import Capture, Checkpoints, Photo, Refusal, read_table
from tests.reference_folders import LABEL, box, class_folder, coco, image, labelme, yolo
from tests.stand_in import write_video

AWKWARD = "sub folder/фото <b>&#?%41'\".png"


@pytest.fixture(scope="session")
def options(nano_options: list[str]) -> list[str]:
    """Options for networks of the nano shapes that find something in every image."""
    return [*nano_options, "--score", "0"]


@pytest.fixture(scope="module")
def photos(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images: one rotated by EXIF, one of 16 bits in a folder with an awkward name, and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    picture = Image.open(photo.path)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    (folder / AWKWARD).parent.mkdir()
    cv2.imwrite(str(folder / AWKWARD), np.asarray(picture.convert("L")).astype(np.uint16) * 16)
    (folder / "broken.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def out(photo: Photo, photos: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with a class folder and a box on the command line."""
    folder = tmp_path_factory.mktemp("run")
    class_folder(folder / "refs", photo)
    corners = ",".join(map(str, box(photo)))
    main([
        "segment", "--references", str(folder / "refs"), "--reference", f"</script>:{photo.path}:box={corners}",
        "--images", str(photos), "--out", str(folder / "out"), "--save-memory", str(folder / "both.memory"), *options,
    ])  # fmt: skip
    return folder / "out"


@pytest.fixture(scope="module")
def results(out: Path) -> COCO:
    """The results as pycocotools reads them."""
    return COCO(out / "images.json").loadRes(str(out / "results.json"))


def by_name(results: COCO) -> dict[str, list[dict]]:
    return {image["file_name"]: results.imgToAnns[image["id"]] for image in results.imgs.values()}


@pytest.mark.parametrize(
    ("form", "write"),
    [("one folder per class", class_folder), ("YOLO txt", yolo), ("LabelMe json", labelme("point"))],
)
def test_references_with_masks_boxes_and_points_give_results(
    form: str, write: Callable[[Path, Photo], None], photo: Photo, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path / "refs", photo)
    arguments = ["--references", str(tmp_path / "refs"), "--images", str(photo.path), "--out", str(tmp_path / "out")]
    main(["segment", *arguments, *options])
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found
    printed = capsys.readouterr().out
    assert f"references: {form} in {tmp_path / 'refs'}: 1 {LABEL}" in printed
    instances = f"{len(found)} instance{'s' * (len(found) != 1)}"
    assert f"1 image, {instances}: {len(found)} {LABEL}; open {tmp_path / 'out/index.html'}" in printed


def test_pycocotools_reads_the_results_at_the_images_own_sizes(results: COCO, photo: Photo) -> None:
    assert sorted(by_name(results)) == sorted(["turned.jpg", AWKWARD])
    height, width = photo.mask.shape
    assert by_name(results)["turned.jpg"][0]["segmentation"]["size"] == [width, height]
    assert by_name(results)[AWKWARD][0]["segmentation"]["size"] == [height, width]


def test_the_table_has_one_line_per_instance_and_the_mask_its_number(out: Path, results: COCO) -> None:
    rows = read_table(out / "instances.csv")
    names = {category["id"]: category["name"] for category in results.cats.values()}
    for name, records in by_name(results).items():
        lines = [row for row in rows if row["image"] == name]
        numbers = np.asarray(Image.open(out / "masks" / Path(name).with_suffix(".png")))
        covered = np.zeros_like(numbers, bool)
        for number, (row, record) in enumerate(zip(lines, records, strict=True), start=1):
            mask = rle.decode(record["segmentation"]).astype(bool)
            assert (int(row["instance"]), row["class"]) == (number, names[record["category_id"]])
            assert float(row["score"]) == pytest.approx(record["score"], abs=1e-4)
            assert int(row["area"]) == mask.sum()
            assert [int(row[key]) for key in ("x1", "y1")] == record["bbox"][:2]
            assert ((numbers == number) == (mask & ~covered)).all()
            covered |= mask
        assert {row["seconds"] for row in lines} == {""}
        assert Image.open(out / "overlays" / Path(name).with_suffix(".jpg")).size == numbers.shape[::-1]


def test_a_saved_memory_finds_the_same_alone(out: Path, photos: Path, options: list[str], tmp_path: Path) -> None:
    memory = ["--memory", str(out.parent / "both.memory")]
    main(["segment", *memory, "--images", str(photos), "--out", str(tmp_path), *options])
    assert (tmp_path / "results.json").read_text() == (out / "results.json").read_text()
    assert len(list((tmp_path / "references").iterdir())) == 2


def test_memories_are_shown_merged_and_reduced(
    out: Path, nano_checkpoints: Checkpoints, tmp_path: Path, refusal: Refusal, capsys: Capture
) -> None:
    both = str(out.parent / "both.memory")
    main(["memory", "remove", both, normalize("NFD", LABEL), "--out", str(tmp_path / "one.memory")])
    main(["memory", "merge", both, str(tmp_path / "one.memory"), "--out", str(tmp_path / "three.memory")])
    capsys.readouterr()
    dinov2 = ["--dinov2", str(nano_checkpoints[1])]
    main(["memory", "show", str(tmp_path / "three.memory"), "--pictures", str(tmp_path / "pictures"), *dinov2])
    printed = capsys.readouterr().out
    assert f"{LABEL}  1 reference  " in printed
    assert "</script>   2 references" in printed
    assert "made with encoder dinov2_nano, img_size 336" in printed
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    removal = ("memory", "remove", both, "rote Blume", "--out", tmp_path / "x")
    assert f"the memory has no class 'rote Blume'; did you mean '{LABEL}'" in refusal(*removal)


def test_every_kth_frame_of_a_video_is_processed(out: Path, photo: Photo, options: list[str], tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", [cv2.imread(str(photo.path))] * 5)
    memory = ["--memory", str(out.parent / "both.memory"), "--every", "2", "--format", "labelme", "video"]
    arguments = ["--images", str(tmp_path / "clip.avi"), "--out", str(tmp_path / "out")]
    main(["segment", *memory, *arguments, *options])
    images = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"clip/00000{index}.jpg" for index in (0, 2, 4)]
    assert all((tmp_path / "out/frames" / image["file_name"]).is_file() for image in images)
    content = json.loads((tmp_path / "out/labelme/clip/000002.json").read_text())
    assert (tmp_path / "out/labelme/clip" / content["imagePath"]).is_file()
    assert {row["seconds"] for row in read_table(tmp_path / "out/instances.csv")} == {"0.000", "0.400", "0.800"}
    annotated = cv2.VideoCapture(str(tmp_path / "out/video/clip.mp4"))
    assert annotated.get(cv2.CAP_PROP_FPS) == pytest.approx(5 / 2)
    frames = [annotated.read()[1] for _ in range(3)]
    assert not annotated.read()[0]
    overlay = cv2.imread(str(tmp_path / "out/overlays/clip/000004.jpg"))
    assert np.abs(frames[2].astype(int) - overlay).mean() < 12


def test_annotated_videos_of_photos_are_said_to_be_none(tmp_path: Path) -> None:
    with pytest.warns(UserNotice, match="--format video writes none"):
        AnnotatedVideos(tmp_path / "out").finish()


@pytest.mark.parametrize("annotated", [True, False])
def test_coco_images_keep_their_ids(
    annotated: bool, out: Path, photo: Photo, options: list[str], tmp_path: Path
) -> None:
    coco(tmp_path, photo)
    path = tmp_path / "annotations/instances.json"
    if not annotated:
        path.write_text(json.dumps({"images": json.loads(path.read_text())["images"]}))
    memory = ["--memory", str(out.parent / "both.memory")]
    main(["segment", *memory, "--images", str(path), "--out", str(tmp_path / "out"), *options])
    assert {record["image_id"] for record in json.loads((tmp_path / "out/results.json").read_text())} == {5}


def test_targets_are_folders_globs_and_files_without_repetition(photos: Path) -> None:
    same = os.path.relpath(photos / "turned.jpg")
    targets = find_targets([str(photos / "**/*.png"), str(photos), str(photos / "turned.jpg"), same], every=1)
    assert targets.count == 3
    assert [target.name for target in targets.images] == [Path(AWKWARD).name, "broken.jpg", "turned.jpg"]


def test_masks_and_images_without_an_ending_among_the_targets_are_named(photo: Photo, tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "b_mask.png", "photo", "c.jpg_large", "@eaDir/a.png", "$RECYCLE.BIN/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo.path, tmp_path / name)
    (tmp_path / "README").write_text("no image")
    (tmp_path / "scan.pdf").touch()
    with pytest.warns(UserNotice) as notices:
        assert find_targets([str(tmp_path)], every=1).count == 3
    (notice,) = notices
    assert str(notice.message).endswith(
        "1 image cannot be read here: scan.pdf (convert them to JPEG or TIFF); "
        "1 image named like a mask of another and searched, too: a_mask.png; "
        "2 images left out, because the name has no ending such as .jpg: c.jpg_large, photo"
    )


def test_brackets_in_the_name_of_a_folder_are_no_pattern(photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "photos [2024]").mkdir()
    shutil.copy(photo.path, tmp_path / "photos [2024]/a.png")
    pattern = str(tmp_path / "photos [2024]" / "[a-c].*")
    check_images([pattern])
    assert [target.name for target in find_targets([pattern], every=1).images] == ["a.png"]


def test_results_inside_of_a_folder_are_neither_photos_nor_references(photo: Photo, tmp_path: Path) -> None:
    image(photo, tmp_path / "photos/photo.png")
    coco(tmp_path, photo)
    (listed,) = tmp_path.rglob("images/default/*.png")
    for name in ("run.json", "results.json", "index.html", f"overlays/{listed.name}", "thumbnails/photo.png"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo.path, tmp_path / "out" / name)
    names = [target.name for target in find_targets([str(tmp_path)], every=1).images]
    assert sorted(names) == sorted(["photos/photo.png", listed.relative_to(tmp_path).as_posix()])
    assert [one.image for one in find_references(tmp_path).references] == [listed]
    assert find_targets([str(tmp_path / "out")], every=1).count == 2, "unless they are asked for"


def test_tiles_are_suggested_for_large_images_in_which_nothing_is_found(
    photo: Photo, nano_options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    Image.new("RGB", (2500, 2000)).save(tmp_path / "large.png")
    words = ["segment", "--reference", photo.reference("a"), "--images", str(tmp_path / "large.png"), *nano_options]
    main([*words, "--threshold", "1", "--out", str(tmp_path / "out")])
    assert "note: nothing was found in 1 large image: small objects may need --tiles 3" in capsys.readouterr().err


def test_references_are_checked_on_a_page_that_does_not_stop_the_run(
    photo: Photo, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    labelme("rectangle")(tmp_path / "refs", photo)
    out = tmp_path / "out"
    arguments = ["--references", str(tmp_path / "refs"), "--out", str(out), *options]
    main(["segment", "--check-references", *arguments])
    assert f"1 reference; open {out / 'references.html'}" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["references.html"]
    page = (out / "references.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 1
    assert "a.png: mask made from the box" in page
    main(["segment", "--images", str(photo.path), *arguments])
    assert (out / "references.html").is_file()
    assert (out / "index.html").is_file()
    main(["segment", "--check-references", *arguments])


def test_all_references_that_cannot_be_used_are_named_at_once_and_need_no_network_for_masks(
    photo: Photo, tmp_path: Path, capsys: Capture
) -> None:
    given = []
    for index in range(2):
        Image.new("L", (120, 90)).save(tmp_path / f"{index}.png")
        given.append(f"thing:{photo.path}:mask={tmp_path / f'{index}.png'}")
    references = ["--reference", *given, photo.reference()]
    with pytest.raises(SystemExit):
        main(["segment", "--check-references", *references, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().err
    assert printed.count(" is empty: its pixels must be brighter than the rest, and outlines in pixels") == 2
    assert f"error: 2 of 3 references cannot be used; see {tmp_path / 'out/references.html'}" in printed
    assert "mask as given" in (tmp_path / "out/references.html").read_text()


def test_names_that_differ_in_case_only_are_pointed_out_and_the_context_can_be_chosen(
    photo: Photo, options: list[str], tmp_path: Path, refusal: Refusal, capsys: Capture
) -> None:
    given = [photo.reference(name) for name in ("Cup", "cup", "coin")]
    path = tmp_path / "a.memory"
    arguments = ["--save-memory", str(path), "--context-ratio", "1.5", *options]
    main(["segment", "--reference", *given, *arguments])
    assert "note: 'Cup' and 'cup' are different classes\n" in capsys.readouterr().err
    assert load_memory(path).made_with["context_ratio"] == 1.5
    assert "did you mean 'cup'" in refusal("segment", "--reference", *given, "--class-score", "cap=0.2", *arguments)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals")
def test_ctrl_c_leaves_what_is_done_and_the_same_command_resumes(
    out: Path, photo: Photo, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(15):
        (photos / f"{index:03d}.png").symlink_to(photo.path)
    arguments = ["--memory", str(out.parent / "both.memory"), "--images", str(photos), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "no_time_to_train", "segment", *arguments, *options],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background job
    )
    while process.poll() is None and not (tmp_path / "out/masks/002.png").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "run the same command again to resume" in printed
    written = COCO(tmp_path / "out/images.json")
    done = len(written.imgs)
    assert 3 <= done < 15
    assert f"interrupted after {done} images" in printed
    before = written.loadRes(str(tmp_path / "out/results.json")).dataset["annotations"]
    assert (tmp_path / "out/index.html").is_file()

    for name in ("results.json", "index.html", "masks/000.png", "thumbnails/000.jpg"):
        path = tmp_path / "out" / name
        path.with_name(f".{path.name}.x7_k2q9z.tmp").touch()  # as a killed run leaves them
    main(["segment", *arguments, *options])
    assert f"({done} of the images by the run before)" in capsys.readouterr().out
    after = COCO(tmp_path / "out/images.json").loadRes(str(tmp_path / "out/results.json")).dataset["annotations"]
    assert after[: len(before)] == before
    assert {record["image_id"] for record in after} == set(range(1, 16))
    assert not list((tmp_path / "out").rglob(".*"))

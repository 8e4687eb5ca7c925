"""The folder of results: replaced atomically, filtered without the networks, and never mixed."""

import csv
import json
import re
import shutil
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pillow_heif
import pytest
import yaml
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.images import allow_pixels, as_rgb
from no_time_to_train.data.targets import find_targets
from no_time_to_train.errors import UserError
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.pipeline.replace_folder import OF_TRACKS, WRITTEN, foreign_files
from no_time_to_train.pipeline.segment_images import segment_images
from no_time_to_train.pipeline.summary import Thresholds
from tests.attacks.test_cases import edit
from tests.conftest import Capture, Patch, Refusal, recorded
from tests.stand_in import ALL_FORMATS, StandIn, files_of, run, write_video


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images that differ only in their suffix, one in a subfolder, and a video of four frames."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(["photo.jpg", "photo.png", "sub/ü.png"]):
        Image.new("RGB", (40, 30), (60 * index, 90, 30)).save(folder / name)
    write_video(folder / "clip.avi", [np.full((30, 40, 3), 50 * index, np.uint8) for index in range(4)])
    return folder


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_all_files_of_a_run_and_no_others_are_known_and_have_unique_names_without_suffixes(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(out, photos, formats=ALL_FORMATS)
    assert list(foreign_files(out)) == []
    unused = {one for one in WRITTEN if not list(out.glob(re.sub(r"/\*", "/**/*", one)))}
    pictures = {"references/[0-9]*_[0-9]*.jpg", "references/-[0-9]*_[0-9]*.jpg", "previews/*.jpg"}
    of_other_runs_and_tools = {"references.html", "metrics.json", "yolo/*.cache", *OF_TRACKS, *pictures}
    of_other_runs_and_tools.add("labelme/*%[0-9A-F][0-9A-F]*")  # photos whose names LabelMe's files cannot hold
    assert unused == of_other_runs_and_tools, "else a run would replace a folder of somebody else's"
    stems = ["clip/000000", "clip/000002", "photo", "photo_2", "sub/ü"]
    for folder, ending in {"masks": "png", "overlays": "jpg", "thumbnails": "jpg", "labelme": "json"}.items():
        assert sorted(path.relative_to(out / folder).as_posix() for path in (out / folder).rglob(f"*.{ending}")) == [
            f"{stem}.{ending}" for stem in stems
        ]
    assert {path.name for path in (out / "yolo/images").rglob("photo*")} == {"photo.jpg", "photo_2.png"}
    images = json.loads((out / "images.json").read_text())["images"]
    paths = {image["file_name"]: image["path"] for image in images}
    assert paths["photo.png"] == "../photos/photo.png"
    assert paths["clip/000002.jpg"] == "frames/clip/000002.jpg"
    assert {image["file_name"]: image.get("seconds") for image in images}["clip/000002.jpg"] == 0.4


def test_the_record_of_a_run_has_the_time_of_all_images(photos: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("no_time_to_train.pipeline.segment_images.time", Mock(time=lambda: time.time() - 3600))
    run(tmp_path / "out", photos)
    record = recorded(tmp_path / "out", "segment")
    assert 3600 <= record["seconds"] < 3700
    assert datetime.now(timezone.utc) - datetime.fromisoformat(record["started"]) > timedelta(hours=1)


def test_instances_are_counted_by_image_and_in_all(photos: Path, tmp_path: Path) -> None:
    summary = run(tmp_path / "out", photos)
    assert table(tmp_path / "out/counts.csv") == [
        ["image", "cup", "coin"],
        *([name, "1", "1"] for name in ("clip/000000.jpg", "clip/000002.jpg", "photo.jpg", "photo.png", "sub/ü.png")),
        ["total", "5", "5"],
    ]
    assert str(summary) == "5 images, 10 instances: 5 coin, 5 cup"


def test_finished_results_are_replaced_as_a_whole_and_only_on_request(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "first/out"
    run(out, photos, formats=ALL_FORMATS)
    with pytest.raises(UserError, match=r"out holds the results of 5 images: give --overwrite to replace them"):
        run(out, photos)
    (photos / "clip.avi").unlink()
    run(out, photos, StandIn(["coin"]), formats=["yolo"], overwrite=True)
    fresh = tmp_path / "fresh/out"
    run(fresh, photos, StandIn(["coin"]), formats=["yolo"])
    assert files_of(out) == files_of(fresh)
    assert yaml.safe_load((out / "yolo/data.yaml").read_text())["names"] == {0: "coin"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("calls", [0, 3])
def test_a_replacement_that_fails_changes_nothing_and_can_be_resumed(calls: int, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, photos)
    before = files_of(out)
    with pytest.raises(RuntimeError):
        run(out, photos, StandIn(["coin"], calls, RuntimeError("no memory left")), overwrite=True)
    assert files_of(out) == before
    interrupted = run(out, photos, StandIn(["coin"], 1, KeyboardInterrupt()), overwrite=True)
    assert interrupted.interrupted
    assert files_of(out) == before
    resumed = run(out, photos, StandIn(["coin"]), overwrite=True)
    assert resumed.done_before == max(calls, 1) + (calls == 3)
    assert resumed.found == {"coin": 10}
    assert not list(tmp_path.glob(".*"))


def test_an_unfinished_run_resumes_with_another_threshold_and_leaves_no_old_file(photos: Path, tmp_path: Path) -> None:
    out, fresh = tmp_path / "first/out", tmp_path / "fresh/out"
    assert run(out, photos, StandIn(calls=3, error=KeyboardInterrupt()), formats=["labelme"]).images == 3
    assert len(table(out / "counts.csv")) == 1 + 3 + 1
    (photos / "clip.avi").unlink()
    assert run(out, photos, score=0.2, formats=["yolo"]).done_before == 1
    run(fresh, photos, score=0.2, formats=["yolo"])
    assert files_of(out) == files_of(fresh)


@pytest.mark.parametrize("name", ["notes.txt", "masks/notes.txt", "references/cup/1.jpg", ".gitignore"])
def test_a_folder_with_other_files_is_never_written_to(name: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).touch()
    (out / ".DS_Store").touch()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=rf"out holds {name}, which is not a file of results"):
            run(out, photos, overwrite=overwrite)
    (out / name).unlink()
    run(out, photos)
    (out / name).touch()
    with pytest.raises(UserError, match=rf"out holds {name}, which is not a file of results"):
        run(out, photos, overwrite=True)
    assert (out / "results.json").is_file()


@pytest.mark.parametrize(
    "name",
    [
        *("yolo/labels/notes.txt", "yolo/images/mine.png", "voc/Annotations/mine.xml", "labelme/mine.json"),
        *("coco/images/photo.jpeg", "cvat/images/mine.png", "cvat-coco/images/default/sub/mine.png"),
        *("label-studio/images/photo.jpg.bak", "coco-train-val/val/mine.png", "x-anylabeling/classes.txt"),
    ],
)
def test_a_file_that_a_person_put_among_exported_ones_is_never_replaced(
    name: str, photos: Path, tmp_path: Path
) -> None:
    run(out := tmp_path / "out", photos, formats=ALL_FORMATS)
    (out / "yolo/labels/clip.cache").touch()  # of ultralytics
    run(out, photos, formats=ALL_FORMATS, overwrite=True)
    (out / name).write_text("hours of work")
    with pytest.raises(UserError, match=f"{name} is (in only one of|of no image)"):
        run(out, photos, overwrite=True)
    assert (out / name).read_text() == "hours of work"


@pytest.mark.parametrize("name", ["instances.csv", "index.html"])
def test_results_of_which_a_file_was_moved_away_say_which(name: str, photos: Path, tmp_path: Path) -> None:
    run(out := tmp_path / "out", photos)
    (out / name).unlink()
    with pytest.raises(UserError, match=rf"out holds \S+, but no {name}: choose a new or an empty folder"):
        run(out, photos, overwrite=True)


def test_a_run_whose_files_were_removed_meanwhile_is_not_complete(
    photos: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    def cleared(output: OutputFolder) -> None:
        shutil.rmtree(output.out / "masks")
        finish(output)

    finish = OutputFolder.finish
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", cleared)
        with pytest.raises(UserError, match=r"out/masks/\S+\.png is gone"):
            run(tmp_path / "out", photos)
    assert run(tmp_path / "out", photos).done_before == 5
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == 5


def test_a_folder_whose_replacement_was_killed_at_the_last_moment_comes_back(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", photos)
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(UserError, match="holds the results of 5 images"):
        run(tmp_path / "out", photos)
    (tmp_path / "out").rename(tmp_path / ".out.old")
    main(["results", "filter", str(tmp_path / "out"), "--threshold", "0.9"])
    assert len(table(tmp_path / "out/counts.csv")) == 7


@pytest.mark.parametrize("score", [0.2, 0.7])
def test_filtering_gives_what_segment_with_it_gives(
    score: float, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, fresh = tmp_path / "first/out", tmp_path / "fresh/out"
    run(out, photos, formats=ALL_FORMATS)
    run(fresh, photos, score=score, formats=ALL_FORMATS)
    main(["filter", str(out), "--score", str(score), "--out", str(tmp_path / "copy/out")])
    main(["filter", str(out), "--score", str(score)])
    count = 15 if score == 0.2 else 5
    assert f"5 images, {count} instances: " in capsys.readouterr().out
    expected = files_of(fresh)
    for filtered in (files_of(out), files_of(tmp_path / "copy/out")):
        assert filtered.keys() == expected.keys()
        # The frames of videos are kept as JPEG files, so pictures of them are not the same to the last bit.
        different = {name for name in expected if filtered[name] != expected[name]}
        assert all(re.fullmatch(r"(overlays|thumbnails|video)/clip.*", name) for name in different)
    assert len(json.loads(expected["results.json"])) == count
    assert len(json.loads(expected["all_results.json"])) == 15
    assert not list(tmp_path.glob("*/.*"))


def test_filtering_keeps_thresholds_that_are_not_given(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    run(tmp_path / "out", photos)
    main(["filter", out, "--class-score", "cup=0.2"])
    assert table(tmp_path / "out/counts.csv")[-1] == ["total", "10", "5"]
    main(["filter", out, "--class-score", "coin=0.7", "--format", "labelme"])
    assert table(tmp_path / "out/counts.csv")[-1] == ["total", "10", "0"]
    assert (tmp_path / "out/labelme/photo_2.json").is_file()
    main(["filter", out, "--score", "0.5"])
    assert table(tmp_path / "out/counts.csv")[-1] == ["total", "5", "5"]
    assert (tmp_path / "out/labelme/photo_2.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class-score", "cup"], "--class-score cup: write NAME=SCORE"),
        (["--class-score", "cap=0.2"], "--class-score cap: there is no such class; did you mean 'cup'?"),
        (["--class-score", "boat=0.2"], "--class-score boat: there is no such class; known are coin, cup"),
        (["--out", "{photos}"], "which is not a file of results"),
    ],
)
def test_a_mistake_in_filtering_is_refused_before_slow_imports_and_changes_nothing(
    options: list[str], message: str, photos: Path, tmp_path: Path, refusal: Refusal, monkeypatch: Patch
) -> None:
    out = tmp_path / "out"
    run(out, photos)
    before = files_of(out)
    monkeypatch.setitem(sys.modules, "no_time_to_train.pipeline.filter_results", None)  # cannot be imported then
    assert message in refusal("filter", out, *(option.format(photos=photos) for option in options))
    assert files_of(out) == before


DAMAGED = {
    "images.json": [
        *[("images/0/stem", value) for value in ("../../evil", "/evil", "a/../../evil", "a\0b", 5)],
        *[("images/0/id", value) for value in (None, [1])],
        ("images/0/seconds", "x"),
        ("images/0/height", -1),
        ("images", {}),
        ("categories/0/color", 5),
        *[("info", value) for value in ({"score": "x"}, {"score": 0.5, "class_scores": {"cup": 7}}, 5)],
    ],
    "all_results.json": [
        *[("0/segmentation", value) for value in (None, {}, [[1, 2, 3, 4, 5, 6]], {"size": [30, 40], "counts": "8Z"})],
        *[("0/score", value) for value in ("x", None, float("nan"))],
        *[("0/bbox", value) for value in (None, [1], [1, 2, 3, float("nan")])],
        *[("0/category_id", value) for value in (None, 99, [1])],
        ("0/image_id", [1]),
        ("0", 5),
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one image."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "photos").mkdir()
    Image.new("RGB", (40, 30), (60, 90, 30)).save(folder / "photos/photo.png")
    run(folder / "out", folder / "photos")
    return folder / "out"


@pytest.mark.parametrize(("name", "place", "value"), [(name, *one) for name, all in DAMAGED.items() for one in all])
def test_damaged_results_are_refused_before_anything_is_written(
    name: str, place: str, value: object, finished: Path, refusal: Refusal
) -> None:
    whole = (finished / name).read_text()
    content = json.loads(whole)
    edit(content, {"set": {place: value}})
    (finished / name).write_text(json.dumps(content))
    before = set(finished.parent.rglob("*"))
    assert name in refusal("filter", finished, "--class-score", "coin=0.1", "--out", finished.with_name("copy"))
    assert set(finished.parent.rglob("*")) == before
    (finished / name).write_text(whole)


def test_filtering_needs_results_and_their_images(photos: Path, tmp_path: Path, refusal: Refusal) -> None:
    out = tmp_path / "out"
    assert "photos holds no all_results.json: give the --out folder of a segment command" in refusal("filter", photos)
    run(out, photos)
    (photos / "photo.jpg").unlink()
    before = files_of(out)
    assert f"image not found: {photos / 'photo.jpg'}" in refusal("filter", out, "--score", "0.1")
    assert files_of(out) == before


def test_where_nothing_is_found_the_best_score_is_named_and_the_page_shows_it(
    photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    summary = run(out, photos, score=0.95)
    assert str(summary) == "5 images, nothing found: the best score is 0.906 (cup in sub/ü.png)"
    assert summary.advice(out) == f"; no-time-to-train results filter {out} --threshold 0.9 shows it"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "0.906 (cup in sub/ü.png)" in page
    assert json.loads((out / "results.json").read_text()) == []
    main(["filter", str(out), "--score", "0.9"])
    assert "5 images, 5 instances: 5 cup" in capsys.readouterr().out


def test_where_no_image_can_be_read_there_are_no_results(photos: Path, tmp_path: Path) -> None:
    for path in [path for path in photos.rglob("*") if path.is_file()]:
        path.write_bytes(b"broken") if path.suffix != ".avi" else path.unlink()
    with pytest.raises(UserError, match=r"none of 3 images can be read: image .*photo\.jpg cannot be read"):
        run(tmp_path / "out", photos)
    assert list((tmp_path / "out").rglob("*")) == []


@pytest.mark.parametrize("order", [["coin", "cup"], ["other", "coin"], []])
def test_classes_keep_the_order_of_the_annotations(order: list[str], photos: Path, tmp_path: Path) -> None:
    out, targets = tmp_path / "out", find_targets([str(photos / "photo.jpg")], every=1)
    segment_images(StandIn(), targets, out, Thresholds(), ["yolo", "cvat-coco"], order)  # type: ignore[arg-type]
    expected = ["coin", "cup"] if order else ["cup", "coin"]
    assert list(yaml.safe_load((out / "yolo/data.yaml").read_text())["names"].values()) == expected
    for name in ("images.json", "cvat-coco/annotations/instances_default.json"):
        categories = json.loads((out / name).read_text())["categories"]
        assert {one["name"]: one["id"] for one in categories} == {"cup": 1, "coin": 2}
        assert [one["name"] for one in categories] == expected
    assert table(out / "counts.csv")[0] == ["image", *expected]
    index = (out / "yolo/labels/photo.txt").read_text().split()[0]
    assert expected[int(index)] == "cup"
    main(["filter", str(out), "--score", "0.5"])
    assert list(yaml.safe_load((out / "yolo/data.yaml").read_text())["names"].values()) == expected


def test_names_of_a_coco_file_stay_inside_the_folder(photos: Path, tmp_path: Path) -> None:
    given = str(photos / "photo.jpg")
    names = ["../photos/photo.jpg", given, "C:\\photos\\photo.jpg", "a/../../sub/ü.png", "photo.png"]
    entries = [{"id": index, "file_name": name} for index, name in enumerate(names, start=7)]
    (photos / "targets.json").write_text(json.dumps({"images": entries}))
    images = list(find_targets([str(photos / "targets.json")], every=1).images)
    inside = ["photos/photo.jpg", given.lstrip("/"), "photos/photo_2.jpg", "a/sub/ü.png", "photo.png"]
    assert [image.name for image in images] == inside
    out = tmp_path / "deep/out"
    summary = segment_images(StandIn(), find_targets([str(photos / "targets.json")], 1), out, Thresholds(), ALL_FORMATS)  # type: ignore[arg-type]
    assert summary.images == 5
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert len(list((out / "masks").rglob("*.png"))) == 5


def test_avif_is_read_and_other_formats_are_named_with_what_they_need(
    photos: Path, monkeypatch: Patch, recwarn: pytest.WarningsRecorder
) -> None:
    Image.open(photos / "photo.png").save(photos / "new.avif")
    for name in ("a.heic", "b.HEIF", "raw.cr2"):
        (photos / name).touch()
    monkeypatch.setattr("no_time_to_train.data.images.HAS_HEIF", False)
    targets = find_targets([str(photos)], every=4)
    assert targets.description == "4 images and 1 video, one frame in 4"
    assert "new.avif" in {target.name for target in targets.images}
    assert as_rgb(photos / "new.avif").shape == (30, 40, 3)
    (notice,) = recwarn
    assert str(notice.message).endswith(
        "2 images cannot be read here: a.heic, b.HEIF (pip install pillow-heif); "
        "1 image cannot be read here: raw.cr2 (convert them to JPEG or TIFF)"
    )
    with pytest.raises(UserError, match=r"a\.heic: 1 image cannot be read here: a\.heic \(pip install pillow-heif\)"):
        find_targets([str(photos / "a.heic")], every=1)


def test_heic_is_read_with_its_package(tmp_path: Path) -> None:
    pillow_heif.from_pillow(Image.new("RGB", (40, 30), "red")).save(tmp_path / "a.heic")
    (target,) = find_targets([str(tmp_path)], every=1).images
    assert target.read().shape == (30, 40, 3)


def test_too_large_images_are_refused_with_the_option_that_allows_them(photos: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    bomb = r"photo\.jpg may be a decompression bomb: it has 1200 pixels, the limit is 1000; .* --max-pixels 1200"
    with pytest.raises(UserError, match=bomb):
        as_rgb(photos / "photo.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # PIL raises another error above twice the limit
    with pytest.raises(UserError, match="--max-pixels 1200"):
        as_rgb(photos / "photo.jpg")
    allow_pixels(1200)
    assert as_rgb(photos / "photo.jpg").shape == (30, 40, 3)

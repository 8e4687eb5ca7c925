"""Files of a user that have the name of an output, or lie where a command keeps its own: they stay as they are."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train.benchmarks.prepare.archives import unpack
from no_time_to_train.cli import main
from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.reference_image import encode_picture
from no_time_to_train.data.targets import find_targets
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.files import PICTURE, REPORT, kind_of, write_json
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.replace_folder import check_output, new_output, put_back
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train.visual.drawing import save_picture
from no_time_to_train.visual.html import write_page
from no_time_to_train_extras.app.app_command import lock_folder
from tests.conftest import Arguments, Checkpoints, Patch, Refusal, stage_arguments
from tests.prepare.sites import files_in, zip_of

SIDE = 112


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A folder with a photo, its COCO file, results, a memory, references and a run: the working directory."""
    monkeypatch.chdir(tmp_path)
    photo = np.zeros((SIDE, SIDE, 3), np.uint8)
    photo[16:96, 16:96] = np.random.default_rng(0).integers(1, 255, (80, 80, 3))
    mask = photo[..., 0] > 0
    Path("images").mkdir()
    Image.fromarray(photo).save("images/a.png")
    box = [16, 16, 80, 80]
    square = {"bbox": box, "area": 6400, "iscrowd": 0, "segmentation": [[16, 16, 96, 16, 96, 96, 16, 96]]}
    image = {"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}
    one = {"id": 1, "image_id": 1, "category_id": 1, **square}
    write_json("coco.json", {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "cup"}]})
    write_json("results.json", [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9}])
    memory = MemoryBank.empty([Category(1, "cup")], 4)
    crop = encode_picture(torch.from_numpy(photo).permute(2, 0, 1) / 255, torch.from_numpy(mask)[None].float())
    memory.add(0, torch.ones(4), torch.tensor(1.0), crop=crop)
    memory.made_with = {"encoder": "dinov2_nano", "img_size": SIDE}
    memory.postprocess()
    save_memory(memory, Path("a.memory"))
    with record_stage(Path("runs/a"), "test", {}, labels={"dataset_name": "few_shot_classes", "n_shot": 1}):
        write_json("runs/a/metrics.json", {"bbox": {"AP": 0.3}})
    return tmp_path


#: Commands, and files that they write.
COMMANDS = {
    "memory show a.memory --pictures mine --dinov2 nano": ["mine/1.png"],
    "sample --json-file coco.json --image-dir images --n-shot 1 --out refs.json --plot": ["refs.png"],
    "report runs": ["runs/report.md", "runs/report.html", "runs/report_coco_fsod.png", "runs/report_coco_fsod.csv"],
    "evaluate --gt coco.json --results results.json": ["metrics.json"],
    "boxes-to-masks coco.json --image-dir images --out m.json --nano --device cpu --pictures mine": ["mine/a.jpg"],
}

#: Of a command that takes long, what it writes, too.
REFUSED = {
    **COMMANDS,
    "references measure --nano --references coco.json --out .": ["reference_report.json", "reference_report.html"],
    "segment --nano --references coco.json --show-references --out out": ["out/references.html"],
    "benchmark coco.json coco.json --nano --out run": [
        *(f"run/{name}" for name in ("config.yaml", "index.html", "metrics.json", "results.json", "references.json")),
        *("run/overlays/1.jpg", "run/thumbnails/1.jpg", "run/references/1_1.jpg"),
    ],
    "benchmark coco.json coco.json --nano --n-shot 1 --seeds 1 2 --out run": ["run/report.html"],
    "demo --out run": ["run/config.yaml"],
}


@pytest.mark.parametrize(("line", "name"), [(line, name) for line, names in REFUSED.items() for name in names])
def test_a_file_of_another_kind_is_refused_before_the_work(line: str, name: str, here: Path, refusal: Refusal) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(("png", "jpg")):
        Image.new("RGB", (8, 8), "navy").save(name)
    else:
        Path(name).write_text('{"accuracy": 0.9}')
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert f"{name} is not replaced, because it is not " in refusal(*line.split())
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", COMMANDS)
def test_the_same_command_replaces_what_it_wrote(line: str) -> None:
    for _ in range(2):
        main(line.split())
        for name in COMMANDS[line]:
            assert kind_of(name) == (PICTURE if name.endswith(("png", "jpg")) else REPORT)


def test_stages_refuse_a_file_of_another_kind_before_their_work(
    tmp_path: Path, arguments: Arguments, nano_checkpoints: Checkpoints, memory: Path, refusal: Refusal
) -> None:
    test = arguments(tmp_path, "--export_result", tmp_path / "results.json", "--on_bad_image", "skip")
    drawing = [*test, "--model.init_args.model_cfg.test.online_vis", "true"]
    sheets = [*stage_arguments("vis_memory", nano_checkpoints, tmp_path), "--ckpt_path", str(memory)]
    for name, line in {
        "metrics.json": test,
        "skipped.json": test,
        "pictures/103.jpg": drawing,
        "sheets/3.png": [*sheets, "--out_path", str(tmp_path / "sheets")],
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"accuracy": 0.9}')
        assert f"{name} is not replaced, because it is not " in refusal(*line)
        assert (tmp_path / name).read_text() == '{"accuracy": 0.9}'
        (tmp_path / name).unlink()


def test_a_page_and_a_picture_say_where_they_are_from(tmp_path: Path) -> None:
    for name, mode in (("a.png", 3), ("b.png", 4), ("c.jpg", 3)):
        save_picture(np.zeros((5, 5, mode), np.uint8), tmp_path / name)
        assert kind_of(tmp_path / name) == PICTURE
    Image.new("RGB", (5, 5)).save(tmp_path / "c.jpg")
    assert kind_of(tmp_path / "c.jpg") is None
    (tmp_path / "index.html").write_text("<!doctype html>\n<title>mine</title>")
    with pytest.raises(UserError, match=r"index\.html is not replaced, because it is not a report of this program"):
        write_page(tmp_path / "index.html", "report.html", title="", sections=[], row=None)


def test_a_folder_of_photos_is_not_taken_for_a_demo(tmp_path: Path, refusal: Refusal) -> None:
    for name in ("photos", "overlays"):
        (tmp_path / "trip" / name).mkdir(parents=True)
        (tmp_path / "trip" / name / "beach.jpg").touch()
    assert "holds something that is not a demo" in refusal("demo", "--out", tmp_path / "trip")
    assert (tmp_path / "trip/overlays/beach.jpg").exists()


def finished(out: Path) -> None:
    """Results as a run leaves them."""
    out.mkdir(parents=True)
    for name in ("results.json", "images.json", "instances.csv", "index.html"):
        (out / name).write_text("{}")


@pytest.mark.parametrize("name", [".out.old/a.txt", ".out.filtered/b/a.txt", ".out.new/.git/a.txt", ".out.lock"])
def test_a_foreign_file_next_to_a_folder_of_results_is_never_removed(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(out)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"in the way of replacing .*out: move it, or choose another folder"):
        check_output(out, overwrite=True)
    with pytest.raises(UserError, match="in the way"), new_output(tmp_path / "out", overwrite=True):
        pass
    shutil.rmtree(out)
    put_back(out)
    with pytest.raises(UserError, match="in the way"), new_output(out, overwrite=False):
        pass
    assert (tmp_path / name).read_text() == "mine"
    assert not out.exists()


def test_what_killed_commands_left_next_to_a_folder_is_removed(tmp_path: Path) -> None:
    for out, name in (("out", "masks/a_1.png"), ("coco", "images/a.jpg"), ("coco", "annotations.json")):
        left = tmp_path / f".{out}.filtered" / name
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()
        (tmp_path / f".{out}.lock").touch()
        with new_output(tmp_path / out, overwrite=True) as folder:
            folder.mkdir()
            assert not left.exists()
        (tmp_path / out).rmdir()
    assert not list(tmp_path.iterdir())


def test_a_foreign_file_in_the_folder_of_a_journal_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / ".results.json.run").mkdir()
    (tmp_path / ".results.json.run/notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt is in the folder of this run's journal"):
        Journal(tmp_path / "results.json").start({})
    assert (tmp_path / ".results.json.run/notes.txt").exists()


def test_links_to_folders_that_are_not_searched_are_named(tmp_path: Path) -> None:
    for name in ("refs/cup", "cat", "dog", "photos"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name / "a.png")
    for name in ("refs/cat", "refs/dog", "refs/.hidden", "photos/cat", "photos/.hidden"):
        (tmp_path / name).symlink_to(tmp_path / "cat")
    with pytest.warns(UserNotice, match=r"2 links to folders left out: \S*refs/cat, \S*refs/dog; copy"):
        assert [one.label for one in find_references(tmp_path / "refs").references] == ["cup"]
    with pytest.warns(UserNotice, match=r"1 folder left out: \S*photos/cat \(a link\); give those that you want, too"):
        assert find_targets([str(tmp_path / "photos")], every=1).count == 1


def test_folders_that_a_pattern_matches_are_named(tmp_path: Path) -> None:
    (tmp_path / "photos/more").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "photos/a.png")
    with pytest.warns(UserNotice, match=r"1 folder left out: \S*photos/more; give those that you want, too"):
        assert find_targets([str(tmp_path / "photos/*")], every=1).count == 1


def test_pictures_of_earlier_results_among_the_photos_are_no_photos(tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/out/overlays/a.jpg", "photos/more/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    for name in ("results.json", "index.html", "run.json"):
        (tmp_path / "photos/out" / name).touch()
    with pytest.warns(UserNotice, match=r"1 folder left out: \S*photos/out \(results\); give those"):
        found = find_targets([str(tmp_path / "photos")], every=1)
    assert [one.name for one in found.images] == ["a.png", "more/b.png"]
    assert find_targets([str(tmp_path / "photos/out")], every=1).count == 1


def test_linked_images_of_annotations_are_found_without_a_notice(here: Path) -> None:
    content = json.loads((here / "coco.json").read_text())
    write_json(here / "refs/coco.json", content)
    (here / "refs/images").symlink_to(here / "images")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserNotice)
        (found,) = find_references(here / "refs").references
    assert found.image == here / "refs/images/a.png"


def test_an_archive_replaces_no_file_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of({"b.txt": b"new", "a.txt": b"theirs"}))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("mine, and edited")
    with pytest.raises(UserError, match=r"data/a\.txt is not the one in .*a\.zip: move or delete it"):
        unpack(tmp_path / "a.zip", tmp_path / "data", lambda name: True)
    assert files_in(tmp_path / "data") == {"a.txt"}


def test_the_lock_of_the_app_empties_no_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("mine")
    with pytest.raises(UserError, match="lock is not the lock of an app"):
        lock_folder(tmp_path, tmp_path, "")
    assert (tmp_path / "lock").read_text() == "mine"

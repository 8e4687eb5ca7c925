"""``references measure`` and ``segment --score auto``: planted mistakes among references are found by leave-one-out."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from no_time_to_train.analysis.measure_references import confusions, similarities, unlike_their_class
from no_time_to_train.analysis.reference_report import FORMAT, UNLIKE
from no_time_to_train.cli import main
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.memory_bank import Category, MemoryBank
from tests.browser import needs_browser
from tests.conftest import Capture, write_picture
from timing.browser import Browser

STRIPES, RINGS = 0, 4
CATEGORIES = [Category(1, "dots"), Category(2, "rings")]


def write_references(folder: Path, labels: dict[int, list[str]]) -> None:
    """Write a reference of a drawn class, by its index, for each label; the labels may be wrong."""
    rng, waiting = np.random.default_rng(777), {index: list(names) for index, names in labels.items()}
    number = 0
    while any(waiting.values()):
        scene, number = draw_scene(rng, NOVEL_CLASSES[:6], (200, 240)), number + 1
        for index, mask in zip(scene.labels.tolist(), scene.masks, strict=True):
            if waiting.get(index) and mask.mean() > 0.04:
                place = folder / waiting[index].pop(0) / f"{number}.png"
                write_picture(scene.image, place)
                write_picture(mask, place.with_name(f"{number}_mask.png"))
                break


def measure(references: Path, out: Path) -> dict:
    """The JSON of ``references measure``."""
    main([
        "references", "measure", "--nano", "--device", "cpu", "--points-per-side", "10",
        "--references", str(references), "--out", str(out),
    ])  # fmt: skip
    return json.loads((out / "reference_report.json").read_text())


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three references of stripes, two of rings, and a third of rings that is labeled stripes."""
    folder = tmp_path_factory.mktemp("wrong")
    write_references(folder / "refs", {STRIPES: ["stripes"] * 3, RINGS: ["rings", "rings", "stripes"]})
    return folder


@pytest.fixture(scope="module")
def report(wrong: Path) -> dict:
    return measure(wrong / "refs", wrong / "out")


def test_a_reference_with_the_label_of_another_class_is_found(wrong: Path, report: dict) -> None:
    rings = {path.name for path in (wrong / "refs/rings").glob("*.png")}
    advised = [one for one in report["shots"] if one["advice"]]
    assert [one["label"] for one in advised] == ["stripes"]
    assert "than like the other references of stripes" in advised[0]["advice"][0]
    assert "check its label and its mask" in advised[0]["advice"][0]
    assert advised[0]["most_similar"] == "rings"
    assert Path(advised[0]["image"]).name not in rings
    assert not report["confusions"]


def test_the_report_has_an_entry_per_class_and_per_reference(report: dict) -> None:
    assert report["format"] == FORMAT
    assert [(one["label"], one["references"]) for one in report["classes"]] == [("rings", 2), ("stripes", 4)]
    assert len(report["shots"]) == 6
    for one in report["classes"]:
        assert all(0 <= one["threshold"][key] <= 1 for key in ("score", "precision", "precision_at_least", "recall"))
    assert all(one["best_iou"] > 0 and 0 <= one["background"] <= 1 for one in report["shots"])


@needs_browser
@pytest.mark.usefixtures("report")
def test_the_page_shows_every_reference_with_its_advice_first(wrong: Path, tmp_path: Path) -> None:
    with closing(Browser(tmp_path, width=400)) as browser:
        browser.open(wrong / "out/reference_report.html")
        captions = browser.texts("figcaption")
        assert len(captions) == 6
        assert "check its label" in captions[0]
        assert browser.run("document.documentElement.scrollWidth") <= 400
        assert not browser.errors


def test_two_classes_that_are_the_same_are_found(tmp_path: Path) -> None:
    write_references(tmp_path / "refs", {STRIPES: ["one", "two"] * 3, RINGS: ["rings"] * 3})
    report = measure(tmp_path / "refs", tmp_path / "out")
    assert [sorted(one["labels"]) for one in report["confusions"]] == [["one", "two"]]


def test_a_wrong_reference_does_not_make_the_right_ones_of_its_class_suspicious() -> None:
    right, wrong, ring = torch.tensor([[1, 0.5], [-1, 1], [0.3, 1]]).unbind()
    vectors = torch.stack([right, right, wrong, ring, ring, ring])
    bank = MemoryBank(CATEGORIES, vectors, torch.tensor([0, 0, 0, 1, 1, 1]), torch.ones(6))
    like_dots, like_rings = similarities(bank)[0].tolist()
    assert like_rings - like_dots > UNLIKE, "with the wrong one, the right ones look like rings"
    assert unlike_their_class(bank) == [2]


def test_one_wrong_reference_confuses_no_classes() -> None:
    dots, rings, wrong = torch.eye(3).unbind()
    vectors = torch.stack([dots, rings, rings, rings, dots - wrong])
    bank = MemoryBank(CATEGORIES, vectors, torch.tensor([0, 1, 1, 1, 1]), torch.ones(5))
    bank.postprocess()
    assert not confusions(bank, similarities(bank))
    bank.vectors[3] = dots
    bank.postprocess()
    assert [one.labels for one in confusions(bank, similarities(bank))] == [("dots", "rings")]


def test_one_reference_says_what_cannot_be_known(tmp_path: Path, capsys: Capture) -> None:
    write_references(tmp_path / "refs", {STRIPES: ["stripes"], RINGS: ["rings"]})
    report = measure(tmp_path / "refs", tmp_path / "out")
    assert [one["threshold"] for one in report["classes"]] == [None, None]
    assert [one["found"] for one in report["shots"]] == [None, None]
    assert "One reference cannot be compared with others" in capsys.readouterr().out


def test_copies_of_a_photo_are_one_image(tmp_path: Path) -> None:
    write_references(tmp_path / "refs", {STRIPES: ["stripes"], RINGS: ["rings"]})
    for path in list((tmp_path / "refs/stripes").iterdir()):
        shutil.copy(path, path.with_name(f"copy_of_{path.name}"))
    report = measure(tmp_path / "refs", tmp_path / "out")
    assert [(one["references"], one["images"], one["threshold"]) for one in report["classes"]][1] == (2, 1, None)
    assert [one["found"] for one in report["shots"]] == [None, None, None]
    assert len({one["image"] for one in report["shots"]}) == 3, "each has the name of its own file"

"""The gallery, opened in a browser from the file system and used as a person does; and the overlays."""

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train import Instances, MemoryBank
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.visual.drawing import PALETTE, draw_instances, instance_colors
from no_time_to_train.visual.gallery import Gallery
from no_time_to_train.visual.labels import place_labels
from tests.browser import HOW_TO_GET_ONE, NO_BROWSER
from tests.conftest import gallery_data
from timing import gallery as speed
from timing.browser import Browser

CATEGORIES = [Category(1, "<i>boat"), Category(2, "it's 鳥")]

#: The class and the score of each instance in an image.
Found = list[tuple[int, float]]
FOUND: dict[str, Found] = {
    "b 2.png": [(0, 0.9), (1, 0.6)],
    "folder/b 10 <b>#?%41.png": [(1, 0.8), (1, 0.71), (0, 0.3)],
    "a.png": [(0, 0.95)],
    "empty.png": [],
}


def instances_of(image: NDArray[np.uint8], found: Found) -> Instances:
    """Instances, given by class and score, whose masks are squares in a row."""
    masks = np.zeros((len(found), *image.shape[:2]), bool)
    boxes = [[10 + 30 * index, 20, 29 + 30 * index, 39] for index in range(len(found))]
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = True
    scores = torch.tensor([score for _, score in found])
    classes = torch.tensor([index for index, _ in found], dtype=torch.int64)
    corners = torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4)
    return Instances(image, CATEGORIES, Detections(Masks.pack(masks), corners, scores, classes))


def write_gallery(out: Path, found: dict[str, Found], **finish: Any) -> Path:
    """Write a gallery of images of 160 x 120 pixels; return the page."""
    image = np.full((120, 160, 3), 90, np.uint8)
    gallery = Gallery(out, MemoryBank.empty(CATEGORIES, 4))
    for name, pairs in found.items():
        truth = instances_of(image, [(0, 1.0)]) if name == "a.png" else None
        gallery.add(name, f"overlays/{name.removesuffix('.png')}.jpg", instances_of(image, pairs), truth)
    command = "no-time-to-train results filter 'my out'/"
    gallery.finish(**{"title": "<b>Boats", "command": command, "score": 0.5, **finish})
    return out / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("gallery"), FOUND, facts={"mask <AP>": "67.1"})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if NO_BROWSER:
        pytest.skip(HOW_TO_GET_ONE)
    with closing(Browser(tmp_path_factory.mktemp("profile"))) as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    """The browser with the gallery of ``FOUND``; no script of the page may fail."""
    browser.open(page)
    yield browser
    assert browser.errors == []


def totals(browser: Browser) -> tuple[str, list[str]]:
    """The line of totals, and the count on each class's chip."""
    return browser.text("#totals").replace("\n", " "), browser.texts(".chip .count")


def names(browser: Browser) -> list[str]:
    return browser.texts("figure .file .base")


def test_the_page_loads_nothing_from_the_internet(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "filter:" not in text
    thumbnails = {path.relative_to(page.parent).as_posix() for path in (page.parent / "thumbnails").rglob("*.jpg")}
    assert thumbnails == {f"thumbnails/{name.removesuffix('.png')}.jpg" for name in FOUND}


def cell_color(browser: Browser, figure: int, x: int, y: int) -> list[int]:
    """Red, green, blue and opacity that a cell draws over a pixel of its 160 x 120 image."""
    return browser.run(
        f"(() => {{ const canvas = document.querySelector('figure:nth-child({figure}) canvas'); "
        f"const at = [canvas.width / 160 * {x + 0.5}, canvas.height / 120 * {y + 0.5}].map(Math.floor); "
        "return [...canvas.getContext('2d').getImageData(...at, 1, 1).data]; })()"
    )


def test_chips_and_slider_select_what_is_counted_and_outlined(opened: Browser) -> None:
    blue = [*PALETTE.by_idx(1).as_rgb(), 64]
    assert totals(opened) == ("5 instances in 3 of 4 images", ["2", "3"])
    assert cell_color(opened, 2, 50, 30) == pytest.approx(blue, abs=2)
    assert cell_color(opened, 2, 50, 20) == pytest.approx([*blue[:3], 255], abs=25)
    assert cell_color(opened, 2, 50, 60) == [0, 0, 0, 0]
    opened.set("#threshold input", 0.75)
    assert totals(opened) == ("3 instances in 3 of 4 images", ["2", "1"])
    assert cell_color(opened, 2, 50, 30) == [0, 0, 0, 0]
    assert cell_color(opened, 2, 20, 30)[3] == 64
    opened.click(".chip:nth-child(1)")
    assert totals(opened) == ("1 instance in 1 of 4 images", ["2", "1"])
    opened.click("#empty")
    assert totals(opened) == ("1 instance in 4 of 4 images", ["2", "1"])
    opened.set("#threshold input", 0.3)
    assert totals(opened) == ("3 instances in 4 of 4 images", ["3", "3"])
    opened.click("#chips .chip:last-child")
    assert totals(opened) == ("6 instances in 4 of 4 images", ["3", "3"])


def test_each_class_has_its_threshold_and_the_command_says_so(opened: Browser) -> None:
    assert opened.text("#command code") == "no-time-to-train results filter 'my out'/ --threshold 0.5"
    opened.click("#class-thresholds summary")
    opened.set("#class-thresholds .slider:nth-child(2) input", 0.75)
    opened.set("#threshold input", 0.3)
    assert totals(opened) == ("4 instances in 3 of 4 images", ["3", "1"])
    opened.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    opened.click("#command button")
    copied = opened.run("window.copied")
    assert copied == opened.text("#command code")
    chosen = ["--threshold", "0.3", "--class-score", "it's 鳥=0.75"]
    assert shlex.split(copied) == ["no-time-to-train", "results", "filter", "my out/", *chosen]
    opened.click("#class-thresholds .slider:nth-child(2) .reset")
    assert totals(opened) == ("6 instances in 3 of 4 images", ["3", "3"])
    assert "--class-score" not in opened.text("#command code")


def test_the_page_begins_with_the_thresholds_of_the_results(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_gallery(tmp_path, FOUND, score=0.4, class_scores={"<i>boat": 0.92}))
    assert totals(browser) == ("4 instances in 3 of 4 images", ["1", "3"])
    assert shlex.split(browser.text("#command code"))[4:] == ["--threshold", "0.4", "--class-score", "<i>boat=0.92"]


def test_images_are_sorted_and_searched_by_name(opened: Browser) -> None:
    first, second, last = all_of_them = ["a.png", "b 2.png", "b 10 <b>#?%41.png"]
    assert names(opened) == all_of_them
    opened.set("#sort", "count")
    assert names(opened) == [second, last, first]
    opened.click("#direction")
    assert names(opened) == all_of_them
    opened.set("#sort", "score")
    assert names(opened) == all_of_them[::-1]
    opened.set("#search", "<b>")
    assert names(opened) == [last]
    opened.set("#search", "B 2")
    assert names(opened) == [second]
    assert totals(opened) == ("2 instances in 1 of 4 images", ["1", "1"])


def test_the_lightbox_has_live_outlines_and_obeys_keys(opened: Browser) -> None:
    opened.click("figure:nth-child(2) .frame")
    assert (opened.text("#viewer-name"), opened.text("#viewer-place")) == ("b 2.png", "2 of 3")
    assert opened.texts("#found button") == ["1\n<i>boat\n0.90", "2\nit's 鳥\n0.60"]
    opened.hover(*opened.middle("#outlines g:last-of-type .shape"))
    assert opened.text("#tip") == "2 · it's 鳥 · 0.60"
    opened.set("#threshold input", 0.75)
    assert opened.texts("#found button") == ["1\n<i>boat\n0.90"]
    for key in ("ArrowRight", "ArrowRight"):
        opened.press(key)
        assert opened.text("#viewer-place") == "3 of 3"
    for key in ("ArrowLeft", "ArrowLeft"):
        opened.press(key)
    assert opened.text("#viewer-name") == "a.png"
    opened.click("#next")
    assert opened.text("#viewer-name") == "b 2.png"
    opened.press("Escape")
    assert opened.run("document.querySelector('#viewer').open") is False
    assert totals(opened)[0] == "3 instances in 3 of 4 images"
    assert opened.run("document.activeElement.getAttribute('aria-label')") == "Open b 2.png"


def test_the_pictures_of_every_image_load_and_names_are_text(opened: Browser) -> None:
    opened.click("#empty")
    opened.click("figure:nth-child(1) .frame")
    for _ in FOUND:
        opened.run("document.querySelector('#picture').decode()")
        opened.press("ArrowRight")
    loaded = "Promise.all([...document.querySelectorAll('figure img')].map(i => i.decode())).then(all => all.length)"
    assert opened.run(loaded) == len(FOUND)
    assert (opened.text("h1"), opened.text("dt")) == ("<b>Boats", "mask <AP>")
    assert opened.texts(".chip .name") == ["<i>boat", "it's 鳥"]
    assert opened.run("document.querySelectorAll('b, i').length") == 0


def test_ground_truth_and_colors_are_switched(opened: Browser) -> None:
    neighbors = [(4, 20, 30), (4, 50, 30)]  # of one class
    assert cell_color(opened, *neighbors[0]) == cell_color(opened, *neighbors[1])
    opened.click("[value=instance] + span")
    assert cell_color(opened, *neighbors[0]) != cell_color(opened, *neighbors[1])
    truth = "[...document.querySelectorAll('#outlines .truth')].map(group => group.style.display)"
    outline = [cell_color(opened, 1, x, 20) for x in range(10, 30)]
    for shown in (True, False):
        opened.click("#truth")
        assert ([cell_color(opened, 1, x, 20) for x in range(10, 30)] != outline) == shown
        opened.click("figure:nth-child(1) .frame")
        assert opened.run(truth) == ["" if shown else "none"]
        opened.press("Escape")


def test_an_empty_page_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_gallery(tmp_path / "high", FOUND, score=0.99))
    assert "The best score is 0.95: <i>boat in a.png." in browser.text("#nothing")
    for hide in (lambda: None, lambda: browser.set("#search", "“zebra”"), lambda: browser.click(".chip:nth-child(1)")):
        hide()
        browser.click("#nothing button")
        assert totals(browser)[0] == "1 instance in 1 of 4 images"
    assert browser.text("#command code").endswith("--threshold 0.95")
    browser.set("#search", "zebra")
    assert "“zebra”" in browser.text("#nothing")
    browser.open(write_gallery(tmp_path / "nothing", {"a.png": []}))
    assert "Look at the references" in browser.text("#nothing")
    browser.open(write_gallery(tmp_path / "no images", {}))
    assert "No image was read" in browser.text("#nothing")
    assert browser.errors == []


@pytest.mark.parametrize("width", [390, 2560, 1280])  # the last size and color scheme are those of other tests
def test_nothing_is_wider_than_the_screen(browser: Browser, tmp_path: Path, width: int) -> None:
    page = write_gallery(tmp_path, {f"{'long name ' * 30}{'x' * 200}.png"[-200:]: [(0, 0.9)]}, title="y" * 300)
    browser.resize(width, 900, touch=width < 500)
    for scheme in ("dark", "light"):
        browser.media(scheme)
        browser.open(page)
        assert browser.run("document.documentElement.scrollWidth") == width
        browser.click(".frame")
        picture = page.with_name(f"{scheme}.png")
        browser.screenshot(picture)
        assert np.asarray(Image.open(picture).convert("RGB")).std() > 5


def test_the_measurement_of_speed_runs(browser: Browser, tmp_path: Path) -> None:
    opened, moves = speed.measure(browser, speed.write_gallery(tmp_path, images=3, instances=2), steps=5)
    assert opened > 0
    assert len(moves) == 5


def test_scores_keep_their_digits(tmp_path: Path) -> None:
    data = gallery_data(write_gallery(tmp_path, {"a.png": [(0, 0.49999), (0, 0.37)]}))
    assert [one["score"] for one in data["images"][0]["instances"]] == [0.49999, 0.37]


def test_large_images_get_smaller_pictures_and_keep_their_holes(tmp_path: Path) -> None:
    image = np.zeros((1000, 2500, 3), np.uint8)
    mask = np.zeros((1, 1000, 2500), bool)
    mask[0, 100:900, 200:1200] = True
    mask[0, 300:700, 400:900] = False
    box = torch.tensor([[200, 100, 1199, 899]])
    ring = Detections(Masks.pack(mask), box, torch.tensor([0.9]), torch.tensor([0]))
    gallery = Gallery(tmp_path, MemoryBank.empty(CATEGORIES, 4))
    gallery.add("large.png", "overlays/large.jpg", Instances(image, CATEGORIES, ring))
    assert Image.open(tmp_path / "thumbnails/large.jpg").size == (640, 256)
    assert Image.open(tmp_path / "previews/large.jpg").size == (1920, 768)
    (one,) = gallery.images[0]["instances"]
    assert one["outline"].count("M") == 2


def test_neighbors_get_different_colors() -> None:
    row = np.array([[20 * index, 0, 20 * index + 18, 18] for index in range(40)])
    chosen = instance_colors(row)
    assert (chosen[1:] != chosen[:-1]).all()
    assert (instance_colors(row[:15]) == chosen[:15]).all()
    assert instance_colors(np.zeros((0, 4), int)).shape == (0,)


def test_labels_cover_neither_each_other_nor_small_objects() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 360, (30, 2))
    boxes = np.hstack([corners, corners + rng.integers(8, 40, (30, 2))])
    sizes = [(60, 14)] * 30
    places = place_labels(boxes, sizes, 400, 400)
    labels = [(x, y, x + 60, y + 14) for x, y in filter(None, places)]
    assert 5 < len(labels) < 30

    def shared(a: Any, b: Any) -> float:
        return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)

    large_and_small = np.array([[100, 100, 199, 199], [250, 250, 259, 259]])
    assert place_labels(large_and_small, [(20, 20)] * 2, 400, 400, inside=True) == [(140, 140), (250, 230)]
    for index, label in enumerate(labels):
        assert 0 <= label[0] <= 340
        assert 0 <= label[1] <= 386
        assert all(shared(label, other) == 0 for other in labels[:index])
        covered = [shared(label, box) / ((box[2] - box[0] + 1) * (box[3] - box[1] + 1)) for box in boxes]
        assert sorted(covered)[-2] <= 0.08
        assert max(covered) <= 0.3


def test_overlays_are_crisp_and_lightly_filled() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    masks = np.zeros((2, 200, 300), bool)
    masks[0, 60:160, 20:120] = masks[1, 60:160, 121:221] = True
    packed = Masks.pack(masks)
    drawn = draw_instances(image, packed, np.array([0, 0]), ["boat 0.90", "boat 0.80"])
    assert (image == 100).all()
    red = np.array(PALETTE.by_idx(0).as_rgb())
    assert np.abs(drawn[110, 70] - (75 + 0.25 * red)).max() <= 1
    assert np.abs(drawn[110, 20] - red).max() <= 25
    assert (drawn[110, 19] > 200).all()
    assert (drawn[190] == 100).all()
    by_instance = draw_instances(image, packed, np.array([0, 0]), ["boat 0.90", "boat 0.80"], by_instance=True)
    assert (by_instance[110, 70] == drawn[110, 70]).all()
    assert (by_instance[110, 170] != drawn[110, 170]).any()
    ours = Detections(Masks.pack(masks), torch.zeros(2, 4), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
    alone = Instances(image, [Category(1, "boat")], ours)
    assert (np.asarray(alone.plot()) == by_instance).all()
    assert draw_instances(image, packed[:0], np.zeros(0, int), []) is image
    assert (draw_instances(image, packed, np.array([0, 1]), ["鳥", "\U0010fffe"])[150, 40] == drawn[150, 40]).all()

"""The page of the app in a real browser: keys, the mouse, zoom, drawing, lists and layout."""

import contextlib
import json
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.files import read_json
from no_time_to_train_extras.video.moving_scenes import RATE, Clip, draw_clip
from tests.browser import needs_browser, steps
from tests.conftest import Capture, Patch
from tests.stand_in import write_video
from timing.app_user import App, User, ask, browser_page, inside

pytest.importorskip("gradio", reason="the app's extra is not installed")

pytestmark = needs_browser

#: The drawn photo, one of 12 megapixels, and a file that is none.
SMALL, LARGE, BROKEN = "000001.png", "large.jpg", "z broken.png"
Places = list[tuple[float, float]]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(np.random.default_rng([777, 0]), NOVEL_CLASSES, 5, 160)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def places(folder: Path, clip: Clip) -> Places:
    """Where a person clicks on the objects of the drawn photo; the photos are in the folder ``images``."""
    write_coco(folder, NOVEL_CLASSES, 1, 1)
    Image.open(folder / "images" / SMALL).convert("RGB").resize((4000, 3000)).save(folder / "images" / LARGE)
    write_video(folder / "images" / "clip.avi", clip.frames[..., ::-1], RATE)
    (folder / "images" / BROKEN).write_bytes(b"no image")
    coco = read_coco(folder / "instances.json")
    masks = sorted((coco.annToMask(one).astype(bool) for one in coco.anns.values()), key=np.sum, reverse=True)
    return [inside(mask) for mask in masks]


@pytest.fixture(scope="module")
def app(folder: Path, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with App(folder / "images", tmp_path_factory.mktemp("app") / "out", "--points-per-side", "8") as running:
        yield running
    assert "/no_time_to_train_extras/app/" not in running.log.read_text(), "a traceback of this package"


@pytest.fixture(scope="module")
def page(app: App) -> Iterator[User]:
    with browser_page() as tab:
        person = User(tab, app.url)
        yield person
        assert person.problems == []
        assert person.elsewhere == [], "the page loads nothing from elsewhere"


@pytest.fixture
def user(page: User, app: App) -> Iterator[User]:
    """A person who sees the whole drawn photo, in which nothing was shown, and takes everything back in the end."""
    page.page.set_viewport_size({"width": 1400, "height": 950})
    page.open(SMALL)
    page.page.locator("#photo").focus()
    page.page.keyboard.press("0")
    yield page
    page.page.keyboard.press("Escape")
    page.answered()
    while page.page.locator("#undo").is_enabled():
        page.page.locator("#undo").click()
        page.answered()


def scene(user: User) -> Any:
    """What the page shows of the photo."""
    user.answered()
    return user.page.evaluate("noTimeToTrain.state.scene")


def stage(user: User) -> dict[str, float]:
    """Where the whole photo is on the page, also what is outside its frame."""
    return user.page.locator("#stage").bounding_box()


def drag(user: User, *points: tuple[float, float], button: str = "left") -> None:
    """Press the mouse at the first of some points of the page, and release it at the last."""
    user.page.mouse.move(*points[0])
    user.page.mouse.down(button=button)
    for point in points[1:]:
        user.page.mouse.move(*point, steps=4)
    user.page.mouse.up(button=button)


def test_one_enter_saves_what_was_typed_right_after_the_click_and_quick_ones_lose_nothing(
    user: User, app: App, places: Places
) -> None:
    for number, place in enumerate(places[:2]):
        user.click(*place)
        user.page.keyboard.type(f"thing {number}\n\n")
    user.answered()
    assert steps(app) == ["thing 0: shown", "thing 1: shown"]
    assert not user.page.locator("#drafting").is_visible()


def test_calls_that_overtake_one_another_on_their_way_lose_nothing(user: User, app: App, places: Places) -> None:
    late: list[Any] = []

    def deliver(route: Any) -> None:
        if '"click"' in route.request.post_data and not late:
            late.append(route)
            return
        route.fulfill(response=route.fetch())
        if '"save"' in route.request.post_data:
            late[0].continue_()

    user.page.route("**/queue/join*", deliver)
    user.click(*places[0])
    user.page.keyboard.type("thing 0\n")
    user.answered()
    user.page.unroute_all(behavior="wait")
    assert steps(app) == ["thing 0: shown"]


def test_a_key_that_comes_before_the_answer_to_a_click_is_not_lost(user: User, app: App, places: Places) -> None:
    def hold_click(route: Any) -> None:
        if '"click"' in route.request.post_data and not held:
            held.append(route)
        else:
            route.continue_()

    held: list[Any] = []
    user.show(*places[0], "boat")
    user.select(*places[0])
    user.page.keyboard.press("Escape")
    user.answered()
    user.page.route("**/queue/join*", hold_click)
    user.click(*places[0])
    while not held:
        user.page.wait_for_timeout(10)
    user.page.keyboard.press("Delete")
    held[0].continue_()
    user.answered()
    user.page.unroute_all(behavior="wait")
    assert len(steps(app)) == 2


def test_a_digit_names_the_object_and_the_last_name_is_there_already(user: User, app: App, places: Places) -> None:
    user.show(*places[0], "one")
    user.wait_for("#classes summary", "one")
    user.click(*places[1])
    user.answered()
    assert user.page.evaluate("document.activeElement.value") == "one"
    user.page.keyboard.press("1")
    user.answered()
    assert steps(app) == ["one: shown", "one: shown"]
    user.click(*places[2])
    user.page.keyboard.type(" 2 euros\n")
    user.wait_for("#classes summary", "2 euros")
    user.select(*places[0])
    user.page.keyboard.press("2")
    user.answered()
    assert steps(app)[2:] == ["2 euros: shown", "one is 2 euros"]


def test_a_class_is_renamed_and_its_references_can_be_opened_and_forgotten(
    user: User, app: App, places: Places
) -> None:
    user.show(*places[0], "boat")
    user.page.locator("#classes summary").click()
    user.page.once("dialog", lambda dialog: dialog.accept("ship"))
    user.page.get_by_role("button", name="Rename").click()
    user.wait_for("#classes summary", "ship")
    user.open(LARGE)
    reference = user.page.get_by_role("button", name=f"ship in {SMALL}")
    assert reference.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 10
    reference.click()
    user.wait_for("#chosen", "ship, confirmed")
    assert scene(user)["photo"] == SMALL
    user.page.get_by_title("forget this reference").click()
    user.page.wait_for_function("!noTimeToTrain.state.scene.items.length")
    assert steps(app)[-1] == "ship: reference removed"


def test_a_color_that_is_chosen_for_a_class_is_everywhere_and_ctrl_z_takes_it_back(
    user: User, app: App, places: Places
) -> None:
    def wait_for_colors(outline: str, of_others: str) -> None:
        """Wait until outlines have a color, and the labels and buttons of classes are as a condition says."""
        user.page.locator(f"#stage .item[stroke='{outline}'][fill='{outline}']").first.wait_for(state="attached")
        others = '[...document.querySelectorAll("#labels span, #label-classes i")].map((one) => one.style.background)'
        user.page.wait_for_function(f"{others}.every((color) => {of_others})")

    user.show(*places[0], "boat")
    color = user.page.get_by_title("color of boat")
    before = color.input_value()
    user.page.locator("#classes summary").focus()
    user.page.keyboard.press("Shift+Tab")
    assert color.evaluate("one => one === document.activeElement")
    color.fill("#ffd0e0")
    wait_for_colors("#ffd0e0", "color === 'rgb(255, 208, 224)'")
    assert user.page.locator("#labels span").first.evaluate("one => one.style.color") == "black"
    assert color.evaluate("one => one === document.activeElement"), "the window in which it is chosen stays open"
    user.page.keyboard.press("Control+z")
    wait_for_colors(before, "color !== 'rgb(255, 208, 224)'")
    assert (color.input_value(), steps(app)) == (before, ["boat: shown"])


def test_a_small_photo_is_enlarged_and_the_wheel_keys_and_dragging_move_it(user: User) -> None:
    whole, frame = stage(user), user.page.locator("#photo").bounding_box()
    assert max(whole["width"] / frame["width"], whole["height"] / frame["height"]) == pytest.approx(1, abs=0.02)
    assert whole["width"] > scene(user)["width"] * 1.2
    x, y = frame["x"] + frame["width"] * 0.4, frame["y"] + frame["height"] * 0.6
    user.page.mouse.move(x, y)
    user.page.mouse.wheel(0, -300)
    user.page.wait_for_function("noTimeToTrain.state.zoom > 1")
    near = stage(user)
    assert (x - near["x"]) / near["width"] == pytest.approx((x - whole["x"]) / whole["width"], abs=0.01)
    user.page.keyboard.press("+")
    assert stage(user)["width"] > near["width"]
    before = stage(user)
    user.page.keyboard.down("Space")
    drag(user, (x, y), (x - 30, y - 20))
    user.page.keyboard.up("Space")
    drag(user, (x - 30, y - 20), (x - 60, y - 40), button="middle")
    assert [stage(user)[axis] - before[axis] for axis in "xy"] == pytest.approx([-60, -40], abs=1)
    user.page.keyboard.press("0")
    assert stage(user) == pytest.approx(whole, abs=1)
    assert scene(user)["masks"] == [], "moving is no click"


def test_two_fingers_zoom(user: User) -> None:
    frame, touch = user.page.locator("#photo").bounding_box(), user.page.context.new_cdp_session(user.page)
    middle = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2

    def fingers(kind: str, *offsets: int) -> None:
        points = [{"x": middle[0] + one, "y": middle[1], "id": number} for number, one in enumerate(offsets)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", -40, 40)
    fingers("touchMove", -60, 60)
    fingers("touchMove", -120, 120)
    fingers("touchEnd")
    assert user.page.evaluate("noTimeToTrain.state.zoom") == pytest.approx(3, abs=0.3)
    assert scene(user)["masks"] == []
    user.page.keyboard.press("0")


def test_a_click_on_a_large_photo_is_one_at_its_full_resolution(user: User) -> None:
    user.open(LARGE)
    user.page.locator("#photo").focus()
    for _ in range(30):
        user.page.keyboard.press("+")
    assert stage(user)["width"] / 4000 > 4
    x, y = scene(user)["width"] // 2 + 3, scene(user)["height"] // 2 - 5
    user.begin(x, y)
    assert scene(user)["points"] == [[x, y]]
    assert user.page.locator("#photo img").evaluate("image => image.naturalWidth") == 4000


def test_the_masks_to_choose_from_are_outlined_where_the_mouse_is(user: User, places: Places) -> None:
    user.begin(*places[0])
    masks = scene(user)["masks"]
    assert len(masks) == 3
    for number, mask in enumerate(masks):
        user.page.locator("#choice button").nth(number).hover()
        assert user.page.locator("#stage .draft").get_attribute("d") == mask["path"]
    user.page.locator("#title").hover()
    assert user.page.locator("#stage .draft").get_attribute("d") == masks[0]["path"]
    user.page.locator("#choice button").nth(2).click()
    assert scene(user)["chosen"] == 2


def test_an_outline_is_drawn_and_erased_and_a_drag_is_a_box(user: User, app: App, places: Places) -> None:
    def draw(*corners: tuple[float, float]) -> None:
        one = stage(user)
        drag(user, *((one["x"] + x * one["width"], one["y"] + y * one["height"]) for x, y in corners))
        user.answered()

    draw((0.1, 0.1), (0.5, 0.5))
    assert len(scene(user)["masks"]) == 1
    user.page.locator("#click label", has_text="erase").click()
    draw((0, 0), (1, 0), (1, 0.25), (0, 0.25))
    user.page.locator("#click label", has_text="draw").click()
    draw((0.7, 0.1), (0.9, 0.1), (0.9, 0.3), (0.7, 0.3))
    user.page.locator("#label input").fill("drawn")
    user.page.keyboard.press("Enter")
    user.answered()
    annotation = json.loads((app.out / "app" / "project.json").read_text())["steps"][0]["add"][0]
    mask = decode_mask(annotation["mask"])
    height, width = mask.shape
    assert mask[int(0.12 * height) : int(0.28 * height), int(0.72 * width) : int(0.88 * width)].all()
    assert not mask[: int(0.23 * height), : int(0.6 * width)].any()
    user.select(0.8 * width, 0.2 * height)
    user.page.keyboard.press("t")
    user.wait_for("#drafting", "erase")
    user.answered()
    assert len(scene(user)["masks"]) == 1


def test_a_corner_of_an_outline_is_dragged_added_and_removed(user: User, places: Places) -> None:
    def at(x: float, y: float) -> tuple[float, float]:
        one = stage(user)
        size = one["width"] / scene(user)["width"]
        return one["x"] + (x + 0.5) * size, one["y"] + (y + 0.5) * size

    def share() -> float:
        return float(scene(user)["masks"][0]["share"].rstrip("%"))

    user.begin(*places[0])
    user.page.locator("#click label", has_text="bend").click()
    shown = user.page.locator("#stage .corner")
    corners, before = scene(user)["corners"], share()
    assert 3 <= shown.count() == len(corners) < 40
    top = min(corners, key=lambda one: one[1])
    drag(user, at(*top), at(top[0], max(top[1] - 60, 0)))
    grown = share()
    assert grown > before
    lowest = corners.index(max(corners, key=lambda one: one[1]))
    (x1, y1), (x2, y2) = corners[lowest - 1], corners[lowest]
    user.page.mouse.dblclick(*at((x1 + x2) / 2, (y1 + y2) / 2))
    user.answered()
    assert (shown.count(), share()) == (len(corners) + 1, pytest.approx(grown, abs=0.2))
    user.page.mouse.click(*at(top[0], max(top[1] - 60, 0)))
    user.page.keyboard.press("Delete")
    user.answered()
    assert shown.count() == len(corners)
    assert share() < grown


def test_photos_are_found_by_name_and_marked_as_reviewed(user: User, app: App) -> None:
    user.page.locator("#wanted input, #wanted textarea").fill("LARG")
    user.page.locator("#gallery button", has_text=SMALL).wait_for(state="hidden")
    assert user.page.locator("#gallery button").count() == 1
    user.page.locator("#wanted input, #wanted textarea").fill("")
    user.page.locator("#gallery button", has_text=SMALL).wait_for()
    user.page.locator("#photo").focus()
    hangul = "{key: '\u314d', code: 'KeyV', bubbles: true}"  # the key V where Korean is typed
    user.page.evaluate(f"document.querySelector('#photo').dispatchEvent(new KeyboardEvent('keydown', {hangul}))")
    user.wait_for("#gallery button[aria-current]", "reviewed")
    assert user.page.locator("#reviewed").get_attribute("aria-pressed") == "true"
    user.wait_for("#progress", "1 reviewed")
    assert steps(app) == [f"{SMALL}: reviewed"]


def test_a_frame_of_a_video_gives_a_reference_and_tracks_lead_to_their_frames(user: User, clip: Clip) -> None:
    user.page.locator("#gallery button", has_text="clip.avi").click()
    user.wait_for("#title", "clip.avi @ 0.00 s")
    user.page.locator("#track:enabled").wait_for()
    for key, number in [(".", 1), (".", 2), (".", 3), (",", 2)]:
        user.page.keyboard.press(key)
        user.page.wait_for_function(f"noTimeToTrain.state.scene.video.number === {number}")
    user.show(*inside(clip.masks[2, 0]), "thing")
    user.wait_for("#gallery button", "clip.avi @ 0.20 s")
    user.page.locator("#track").click()
    user.wait_for("#tracks", "thing 1")
    track = scene(user)["video"]["tracks"][0]
    bar = user.page.locator("#tracks div button").first
    bar.click(position={"x": bar.bounding_box()["width"] - 1, "y": 5})
    user.page.wait_for_function(f"noTimeToTrain.state.scene.video.number === {track['last']}")
    assert "thing 1" in [one["text"] for one in scene(user)["video"]["outlines"]]
    assert user.page.locator("#stage .track").count() == len(scene(user)["video"]["outlines"])
    with user.page.expect_download() as download:
        user.page.locator("#pack_tracks").click()
    assert {"tracks.csv", "index.html"} <= set(zipfile.ZipFile(download.value.path()).namelist())


def test_a_photo_that_cannot_be_read_shows_nothing_of_the_photo_before(user: User, places: Places) -> None:
    user.show(*places[0], "thing")
    user.page.locator("#labels span").first.wait_for()
    user.open(BROKEN)
    user.wait_for("#title", "cannot be read")
    assert user.page.locator("#labels span").count() == 0


def test_an_export_is_a_folder_of_segment_with_what_was_confirmed_and_a_zip_file(
    user: User, app: App, places: Places, capsys: Capture
) -> None:
    user.page.get_by_text("Export", exact=True).first.click()
    user.show(*places[0], "thing")
    user.wait_for("#progress", "2 of 2")
    user.page.locator("#export").click()
    user.wait_for("#exported", "2 images")
    results = app.out / "results"
    assert [one["score"] for one in read_json(results / "results.json") if one.get("confirmed")] == [1.0]
    assert len(load_memory(results / "references.memory")) == 1
    main(["filter", str(results), "--score", "1", "--out", str(app.out / "filtered")])
    assert "1 instance" in capsys.readouterr().out
    with user.page.expect_download() as download:
        user.page.locator("#download").click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert {"results.json", "images.json", "references.memory"} <= set(names)
    user.page.locator("#undo").click()
    user.wait_for("#redo", "shown")
    user.show(*places[0], "other thing")
    user.wait_for("#progress", "2 of 2")
    with user.page.expect_download() as download:
        user.page.locator("#download").click()
    later = zipfile.ZipFile(download.value.path()).read("images.json").decode()
    assert "other thing" in later, "what was done since the last export is exported first"


def test_another_class_and_a_wrong_object_can_be_undone_and_done_again(user: User, app: App, places: Places) -> None:
    user.show(*places[0], "boat")
    user.select(*places[0])
    user.wait_for("#chosen", "confirmed")
    user.name("other", "gravel")
    user.press("rename")
    user.wait_for("#title", "gravel")
    renamed = ["boat: shown", "boat is gravel"]
    assert steps(app) == renamed
    for keys, done in (("Control+z", renamed[:1]), ("Control+y", renamed), ("Control+z", renamed[:1])):
        user.page.keyboard.press(keys)
        user.wait_for("#undo" if done == renamed else "#redo", "gravel")
        assert steps(app) == done
    user.select(*places[0])
    user.page.keyboard.press("w")
    user.page.locator("#right").wait_for(state="hidden")
    assert steps(app) == ["boat: shown", "boat: wrong"]


def test_what_was_found_can_be_outlined_again(user: User, app: App, places: Places) -> None:
    user.show(*places[0], "boat")
    user.select(*places[0])
    user.page.keyboard.press("o")
    user.page.locator("#save").wait_for(state="visible")
    user.save("boat")
    assert steps(app) == ["boat: shown"] * 2
    confirmed = [one for one in scene(user)["items"] if "confirmed" in one["words"]]
    assert len(confirmed) == 1, "the new mask takes the place of the old one"


def test_the_slider_of_a_class_takes_keys_and_can_be_reset(user: User, places: Places) -> None:
    import playwright.sync_api as playwright

    slider = "#scores input[type=range]"

    def until(text: str, act: Callable[[], None]) -> None:
        """Act again where the slider was replaced at that moment, because the lowest scores had just changed."""
        for _ in range(20):
            act()
            with contextlib.suppress(playwright.TimeoutError):
                user.page.locator("#undo").filter(has_text=text).wait_for(timeout=5000)
                return

    def press() -> None:
        user.page.locator(slider).focus()
        user.page.keyboard.press("ArrowRight")

    def reset() -> None:
        button = user.page.get_by_role("button", name="Reset")
        if button.is_visible():
            button.click()

    user.show(*places[0], "boat")
    until("boat: from 0.5", press)
    until("automatic score", reset)
    user.page.wait_for_function(f"document.querySelector('{slider}').value === '0.5'")


def test_a_class_name_with_a_script_is_text_everywhere(user: User, places: Places) -> None:
    user.show(*places[0], "<img src=x onerror=document.title='hacked'>")
    user.wait_for("#classes", "<img")
    assert user.page.title() == "No Time To Train"


def test_a_second_tab_has_its_own_photo_and_selection(user: User, app: App) -> None:
    other = User(user.page.context.browser.new_page(), app.url)
    other.open(LARGE)
    other.begin(2, 2)  # a corner: whatever it shows is shown in the other tab only
    other.page.locator("#cancel").click()
    other.begin(2, 2)
    assert user.page.locator("#title b").inner_text() == SMALL  # not what says that a call runs
    assert not user.page.locator("#save").is_visible()
    other.page.context.close()


@pytest.mark.parametrize(
    ("width", "height"), [(390, 844), (768, 1024), (1000, 700), (1024, 768), (1180, 820), (1280, 900), (2560, 1300)]
)
def test_at_any_width_nothing_is_cut_off_and_every_button_has_a_name(
    user: User, places: Places, width: int, height: int
) -> None:
    user.page.set_viewport_size({"width": width, "height": height})
    user.page.wait_for_timeout(100)
    user.begin(*places[0])
    assert user.page.evaluate("document.documentElement.scrollWidth") <= width
    undo, redo = (user.page.locator(f"#{name}").bounding_box() for name in ("undo", "redo"))
    assert redo["y"] == pytest.approx(undo["y"], abs=2)
    assert redo["height"] < 50
    last, photo = (user.page.locator(f"#{name}").bounding_box() for name in ("in", "photo"))
    assert last["x"] + last["width"] <= photo["x"] + photo["width"] + 1, "no button lies over the next column"
    field = user.page.locator("#label input").bounding_box()
    assert 0 < field["y"] < height - field["height"], "the name can be typed without scrolling"
    nameless = """() => [...document.querySelectorAll("#columns button, #columns input")].filter((one) =>
      one.offsetParent && !(one.ariaLabel || one.innerText?.trim() || one.title || one.labels?.length
        || one.querySelector("img[alt]:not([alt=''])"))).map((one) => one.outerHTML.slice(0, 200))"""
    assert user.page.evaluate(nameless) == []


def test_mode_tiles_and_the_most_objects_are_options(tmp_path: Path, monkeypatch: Patch) -> None:
    served: list[Any] = []
    serve = "no_time_to_train_extras.app.page.serve"
    monkeypatch.setattr(serve, lambda workspace, *_, **__: served.append(workspace))
    words = ["--tiles", "2", "--mode", "best", "--max-instances", "7", "--points-per-side", "4", "--no-browser"]
    main(["app", "--demo", *words, "--out", str(tmp_path / "out")])
    settings = served[0].segmenter.segmenter.settings
    assert (settings.tiles, settings.suppression, settings.max_instances) == (2, "none", 7)


def test_uploads_are_photos_and_a_text_named_jpg_is_refused_in_one_line(user: User, app: App, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "navy").save(tmp_path / "new one.png")
    (tmp_path / "text.jpg").write_text("hello")
    field = user.page.locator("#upload input, input#upload, input[type=file]").first
    field.set_input_files([str(tmp_path / "text.jpg"), str(tmp_path / "new one.png")])
    user.wait_for("#title", "uploads/new one.png")
    user.wait_for(".toast-body, .toast-wrap", "text.jpg cannot be read")
    assert [path.name for path in (app.out / "app" / "uploads").iterdir()] == ["new one.png"]


def test_a_killed_app_has_everything_when_it_is_started_again(
    page: User, app: App, folder: Path, places: Places
) -> None:
    page.open(SMALL)
    page.show(*places[0], "boat")
    page.wait_for("#progress", "3 of 3 photos")
    before, shown = steps(app), ask(app.url, "objects", SMALL)
    app.end(signal.SIGKILL)
    with App(folder / "images", app.out, "--points-per-side", "8") as again:
        person = User(page.page.context.browser.new_page(), again.url)
        person.wait_for("#progress", "3 of 3 photos")
        assert (steps(again), ask(again.url, "objects", SMALL)) == (before, shown)
        person.page.context.close()

"""The app in a real browser: show, find, correct, keep and serve."""

import contextlib
import http.client
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from tests.browser import needs_browser
from timing.app_user import App, User, browser_page, inside, post

pytest.importorskip("gradio", reason="the app's extra is not installed")

#: The photos, and the seed that draws them.
PHOTOS, SEED = 4, 1


@dataclass
class Truth:
    """An object that was drawn: its photo, its class and its mask."""

    photo: str
    label: str
    mask: NDArray[np.bool_]


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> list[Truth]:
    folder = tmp_path_factory.mktemp("photos")
    write_coco(folder, NOVEL_CLASSES, PHOTOS, SEED)
    coco = read_coco(folder / "instances.json")
    return [
        Truth(
            str(folder / "images" / coco.imgs[one["image_id"]]["file_name"]),
            coco.cats[one["category_id"]]["name"],
            coco.annToMask(one).astype(bool),
        )
        for one in coco.anns.values()
    ]


@pytest.fixture(scope="module")
def app(truths: list[Truth], tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    running = App(
        Path(truths[0].photo).parent, tmp_path_factory.mktemp("app") / "out", "--points-per-side", "12", "--api"
    )
    yield running
    running.end()
    assert "/no_time_to_train_extras/app/" not in running.log.read_text(), "a traceback of this package"


@pytest.fixture(scope="module")
def user(app: App) -> Iterator[User]:
    with browser_page() as page:
        person = User(page, app.url)
        yield person
        assert person.problems == []
        assert person.elsewhere == [], "the page loads nothing from elsewhere"


def largest(truths: list[Truth]) -> Truth:
    return max(truths, key=lambda one: int(one.mask.sum()))


def steps(app: App) -> list[str]:
    """The names of the steps that are done, as the project's file has them."""
    content = json.loads((app.out / "app" / "project.json").read_text())
    return [step["name"] for step in content["steps"][: content["done"]]]


def objects(app: App, photo: str) -> list[dict[str, Any]]:
    """The objects that a photo shows."""
    answer = post(app.url, "objects", [Path(photo).name])
    return json.loads(answer.split("data: ")[1])[0]


@needs_browser
def test_a_click_and_a_name_find_every_object_of_a_class(user: User, app: App, truths: list[Truth]) -> None:
    shown = largest(truths)
    user.open(Path(shown.photo).name)
    user.show(*inside(shown.mask), shown.label)
    user.wait_for("#title", shown.label)
    user.wait_for("#progress", f"{PHOTOS} of {PHOTOS} photos")
    assert steps(app) == [f"{shown.label}: shown"]
    confirmed = [one for one in objects(app, shown.photo) if one["confirmed"]]
    assert [one["label"] for one in confirmed] == [shown.label]
    user.wait_for("#classes", shown.label)


@needs_browser
def test_wrong_other_class_and_remove_can_be_undone_and_done_again(user: User, app: App, truths: list[Truth]) -> None:
    shown = largest(truths)
    user.open(Path(shown.photo).name)
    before = steps(app)
    user.select(*inside(shown.mask))
    user.wait_for("#chosen", "confirmed")
    user.page.locator("#other input").fill("gravel")
    user.page.keyboard.press("Tab")
    user.press("rename")
    user.wait_for("#title", "gravel")
    assert steps(app)[len(before) :] == [f"{shown.label} is gravel"]
    user.page.keyboard.press("Control+z")
    user.wait_for("#redo", "gravel")
    assert steps(app) == before
    user.page.keyboard.press("Control+y")
    user.wait_for("#undo", "gravel")
    user.page.keyboard.press("Control+z")
    user.wait_for("#redo", "gravel")
    user.select(*inside(shown.mask))
    user.page.keyboard.press("w")
    user.page.locator("#right").wait_for(state="hidden")
    assert steps(app)[len(before) :] == [f"{shown.label}: wrong"]
    user.page.locator("#undo").click()
    user.wait_for("#redo", "wrong")


@needs_browser
def test_what_was_found_can_be_outlined_again(user: User, app: App, truths: list[Truth]) -> None:
    shown = largest(truths)
    user.open(Path(shown.photo).name)
    before, count = steps(app), len(objects(app, shown.photo))
    user.select(*inside(shown.mask))
    user.page.keyboard.press("o")
    user.page.locator("#save").wait_for(state="visible")
    user.save(shown.label)
    assert steps(app)[len(before) :] == [f"{shown.label}: shown"]
    assert len(objects(app, shown.photo)) == count, "the new mask takes the place of the old one"
    user.page.locator("#undo").click()
    user.wait_for("#redo", "shown")


@needs_browser
def test_the_slider_of_a_class_takes_keys_and_can_be_reset(user: User, app: App, truths: list[Truth]) -> None:
    import playwright.sync_api as playwright

    before, label, slider = steps(app), largest(truths).label, "#scores input[type=range]"

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

    until(f"{label}: from 0.5", press)
    until("automatic score", reset)
    user.page.wait_for_function(f"document.querySelector('{slider}').value === '0.5'")
    while steps(app) != before:
        text = user.page.locator("#undo").inner_text()
        user.page.locator("#undo").click()
        user.wait_for("#redo", text.removeprefix("Undo "))


@needs_browser
def test_an_export_is_a_folder_of_segment_with_what_was_confirmed(
    user: User, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    user.page.get_by_text("Export", exact=True).first.click()
    user.page.locator("#export").click()
    user.wait_for("#exported", f"{PHOTOS} images")
    results = app.out / "results"
    records = json.loads((results / "results.json").read_text())
    assert [record["score"] for record in records if record.get("confirmed")] == [1.0]
    assert len(load_memory(results / "references.memory")) == 1
    main(["filter", str(results), "--score", "1", "--out", str(results.parent / "filtered")])
    assert "1 instance" in capsys.readouterr().out


@needs_browser
def test_a_class_name_with_a_script_is_text_everywhere(user: User, app: App, truths: list[Truth]) -> None:
    name = "<img src=x onerror=document.title='hacked'>"
    other = min(truths, key=lambda one: -int(one.mask.sum()) if one.photo != largest(truths).photo else 0)
    user.open(Path(other.photo).name)
    user.begin(*inside(other.mask))
    user.save(name)
    user.wait_for("#classes", "<img")
    assert user.page.title() == "No Time To Train"
    user.page.locator("#undo").click()
    user.wait_for("#redo", "<img")


@needs_browser
def test_uploads_are_photos_and_a_text_named_jpg_is_refused_in_one_line(user: User, app: App, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "navy").save(tmp_path / "new one.png")
    (tmp_path / "text.jpg").write_text("hello")
    user.page.locator("#upload input, input#upload, input[type=file]").first.set_input_files(
        [str(tmp_path / "text.jpg"), str(tmp_path / "new one.png")]
    )
    user.wait_for("#title", "uploads/new one.png")
    user.wait_for(".toast-body, .toast-wrap", "text.jpg cannot be read")
    assert [path.name for path in (app.out / "app" / "uploads").iterdir()] == ["new one.png"]


@needs_browser
def test_a_second_tab_has_its_own_photo_and_selection(user: User, app: App, truths: list[Truth]) -> None:
    user.open(Path(truths[0].photo).name)
    other = User(user.page.context.browser.new_page(), app.url)
    other.open(Path(truths[-1].photo).name)
    x, y = 2, 2  # a corner: whatever it shows is shown in the other tab only
    other.begin(x, y)
    other.page.locator("#cancel").click()
    other.begin(x, y)
    assert user.page.locator("#title b").inner_text() == Path(truths[0].photo).name  # not what says that a call runs
    assert not user.page.locator("#save").is_visible()
    other.page.context.close()


def test_the_server_gives_no_other_file_of_this_computer(app: App, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    places = [secret, app.out / "app" / "project.json", app.out / "app" / "thumbnails" / ".." / "project.json"]
    for place in [*places, Path("/etc/passwd"), Path("pyproject.toml")]:
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{app.url}gradio_api/file={place}")
        assert error.value.code in (403, 404)
    answer = post(app.url, "segment", [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}, 0.5])
    assert "event: error" in answer
    assert "secret.txt" not in answer.replace(str(tmp_path), "")


def test_a_file_that_is_too_large_is_refused_while_it_is_sent(app: App) -> None:
    border = "border"
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="large.jpg"\r\n\r\n'
    body = head.encode() + bytes(51 * 2**20) + f"\r\n--{border}--\r\n".encode()
    request = urllib.request.Request(
        f"{app.url}gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={border}"}
    )
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as error:
        urllib.request.urlopen(request)
    assert getattr(error.value, "code", 413) == 413


@pytest.mark.parametrize(
    ("endpoint", "data", "message"),
    [
        ("objects", ["../instances.json"], "there is no photo"),
        ("judge", ["000001.png", 99, "right", None], "there is no object 99"),
        ("judge", ["000001.png", 0, "maybe", None], "maybe"),
        ("show", ["000001.png", " ", [[5, 5]], None, None], "blank"),
        ("show", ["000001.png", "cup", None, None, None], "give points"),
        ("show", ["000001.png", "cup", [[1e9, 5]], None, None], "not x, y"),
        ("show", ["000001.png", "cup", None, None, [9, 9, 2, 2]], "ends before it begins"),
        ("show", ["000001.png"], "show takes photo, label, points, negative_points, box: got 1 values"),
        ("show", ["000001.png", "cup"], "give points"),
        ("segment", [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "upload the photo"),
    ],
)
def test_a_mistake_in_a_call_is_answered_in_one_line(app: App, endpoint: str, data: list[Any], message: str) -> None:
    answer = post(app.url, endpoint, data)
    assert "event: error" in answer
    assert message in answer
    assert "Traceback" not in answer + app.log.read_text()


def test_photo_in_and_coco_out(app: App, truths: list[Truth]) -> None:
    from gradio_client import Client, handle_file

    client = Client(app.url, verbose=False)
    found = client.predict(photo=handle_file(truths[0].photo), score=0.3, api_name="/segment")
    assert found["images"][0]["file_name"] == Path(truths[0].photo).name
    assert {one["name"] for one in found["categories"]} == {largest(truths).label}


def test_programs_find_a_class_as_soon_as_it_is_shown_on_the_same_server(app: App, truths: list[Truth]) -> None:
    shown = largest(truths)
    assert answer(app, "/api/health")[0] == 200
    post(app.url, "show", [Path(shown.photo).name, "gravel", [inside(shown.mask)]])
    try:
        (memory,) = json.loads(answer(app, "/api/memories")[2])
        assert "gravel" in [one["name"] for one in memory["classes"]]
        request = urllib.request.Request(f"{app.url}api/segment?threshold=0.1", Path(shown.photo).read_bytes())
        with urllib.request.urlopen(request, timeout=60) as response:
            found = json.load(response)
    finally:
        post(app.url, "undo", [])
    ids = [one["id"] for one in found["categories"] if one["name"] == "gravel"]
    masks = [decode_mask(one["segmentation"]) for one in found["annotations"] if one["category_id"] in ids]
    assert max((mask & shown.mask).sum() / (mask | shown.mask).sum() for mask in masks) > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--demo", "--host", "0.0.0.0"], "lets other computers in"),
        (["--demo", "--host", "example.org"], "lets other computers in"),
        (["--demo", "--auth", "me"], "USER:PASSWORD"),
        (["--demo", "--auth", "me:secret", "--no-auth"], "contradict"),
        (["--demo", "--auth", "me:secret", "--api"], "NO_TIME_TO_TRAIN_TOKEN"),
        ([], "which photos"),
        (["--images", "nowhere"], "checkpoint"),
        (["--images", "nowhere", "--nano"], "nowhere"),
        (["--results", "."], "no finished folder"),
        (["--demo", "--memory", "nowhere.memory"], "not found: nowhere.memory"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_written(
    options: list[str], message: str, refusal: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal("app", *options)


def answer(app: App, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, Any, str]:
    """The status, the headers and the text of an answer; underscores in names of headers are dashes."""
    place = urllib.parse.urlsplit(app.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    content = body if body is None or isinstance(body, str) else json.dumps(body)
    sent = {"content-type": "application/json", **{name.replace("_", "-"): one for name, one in headers.items()}}
    connection.request(method or ("GET" if body is None else "POST"), path, content, sent)
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    connection.close()
    return response.status, response.headers, text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{}", "[::ffff:127.0.0.1]:{}", "0:{}", "localhost.evil.example:{}", "127.0.0.1.x:{}"],
)
def test_only_the_name_of_this_computer_is_answered(app: App, host: str) -> None:
    host = host.format(urllib.parse.urlsplit(app.url).port)
    for path in ("/", "/config", "/gradio_api/info", "/api/health", "/api/segment"):
        status, headers, text = answer(app, path, Host=host, Origin=f"http://{host}")
        assert (status, headers["access-control-allow-origin"]) == (403, None)
        assert len(text) < 200


def test_only_the_page_itself_may_call_the_app_and_nobody_shows_it_in_a_frame(app: App) -> None:
    status, headers, _ = answer(app, "/")
    assert (status, headers["x-frame-options"]) == (200, "DENY")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    call = {"data": []}
    for origin in ("null", "http://evil.example", "http://127.0.0.1:1", app.url.rstrip("/") + ".evil.example"):
        assert answer(app, "/gradio_api/call/photos", call, Origin=origin)[0] == 403
        assert answer(app, "/", method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST")[0] == 403
    assert answer(app, "/gradio_api/upload", "", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert answer(app, "/gradio_api/call/photos", call, Origin=app.url.rstrip("/"))[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("call/objects", {"data": [{}]}),
        ("call/objects", {"data": [[1]]}),
        ("call/judge", {"data": ["000001.png", True, "right"]}),
        ("call/show", {"data": ["000001.png", "cup", [["a", "b"]]]}),
        ("call/export", {"data": [5]}),
        ("call/export", {"data": [[[]]]}),
        ("call/nothing", {"data": []}),
        ("call/photos", "no JSON"),
        ("call/photos", {"data": 5}),
        ("call/v2/nothing", {"a": 1}),
        ("queue/join", {"data": [], "fn_index": 9999, "session_hash": "a"}),
        ("run/photos", {"data": []}),
    ],
)
def test_a_call_of_wrong_types_is_refused_in_one_line(app: App, path: str, body: Any) -> None:
    status, _, text = answer(app, f"/gradio_api/{path}", body)
    assert status in (400, 404)
    assert len(text.splitlines()) == 1
    assert "Traceback" not in app.log.read_text()


def test_an_upload_that_is_sent_too_slowly_is_ended(app: App) -> None:
    place = urllib.parse.urlsplit(app.url)
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 10000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as client:
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_passwords_are_not_guessed_quickly_links_lead_to_no_file_and_the_page_takes_any_values(
    truths: list[Truth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_TIME_TO_TRAIN_PASSWORD", "secret")
    monkeypatch.setenv("NO_TIME_TO_TRAIN_TOKEN", "a token")
    form, kind = "username=me&password=", {"content_type": "application/x-www-form-urlencoded"}
    secret, folder = tmp_path / "elsewhere" / "secret.txt", tmp_path / "out" / "app"
    for made in (secret.parent, folder):
        made.mkdir(parents=True)
    secret.write_text("secret")
    for name in ("thumbnails", "uploads"):
        (folder / name).symlink_to(secret.parent)
    options = "--points-per-side", "4", "--auth", "me", "--api"
    with App(Path(truths[0].photo).parent, tmp_path / "out", *options) as locked:
        assert b"secret" not in Path(f"/proc/{locked.process.pid}/cmdline").read_bytes()
        assert answer(locked, "/config")[0] == 401
        assert [answer(locked, f"/api/{path}")[0] for path in ("health", "memories", "segment")] == [200, 401, 401]
        assert answer(locked, "/api/memories", Authorization="Bearer a token")[::2] == (200, "[]")
        status, headers, _ = answer(locked, "/login", f"{form}secret", **kind)
        assert status == 200
        cookies = headers.get_all("set-cookie")
        assert cookies
        assert all(cookie.lower().count("samesite") == 1 and "SameSite=Strict" in cookie for cookie in cookies)
        cookie = "; ".join(one.partition(";")[0] for one in cookies)
        assert answer(locked, "/config", Cookie=cookie)[0] == 200
        for place in (secret, folder / "thumbnails" / "secret.txt", folder / "uploads" / "secret.txt"):
            assert answer(locked, f"/gradio_api/file={place}", Cookie=cookie)[0] == 403
        for function in json.loads(answer(locked, "/config", Cookie=cookie)[2])["dependencies"]:
            for data in ([], ["a"], [{"x": 1}, 5, None], [None, "a", -1]):
                call = {"data": data, "fn_index": function["id"], "session_hash": "any", "event_data": {"index": None}}
                assert answer(locked, "/gradio_api/queue/join", call, Cookie=cookie)[0] == 200
        time.sleep(1)  # the calls wait in a queue
        assert "Traceback" not in locked.log.read_text()
        guesses = [answer(locked, "/login", f"{form}{number}", **kind)[0] for number in range(20)]
        assert guesses == [400] * 10 + [429] * 10
        assert answer(locked, "/login", f"{form}secret", **kind)[0] == 429


@pytest.mark.slow
def test_two_thousand_calls_of_any_values_are_answered_in_one_line(app: App) -> None:
    schema = json.loads(answer(app, "/gradio_api/info")[2])["named_endpoints"]
    random = Random(0)
    simple: list[Any] = [None, True, -1, 0, 10**30, 0.5, float("nan"), "", "000001.png", "right", "cup", "x" * 5000, {}]

    def value(depth: int = 0) -> Any:
        if depth < 3 and random.random() < 0.4:
            return [value(depth + 1) for _ in range(random.randint(0, 4))]
        return random.choice([*simple, {"path": "/etc/passwd"}, {"path": "x" * 5000}])

    for _ in range(2000):
        name, about = random.choice(list(schema.items()))
        data = [value() for _ in range(random.randint(0, len(about["parameters"]) + 1))]
        status, _, text = answer(app, f"/gradio_api/call{name}", {"data": data})
        assert status in (200, 400), (name, data)
        if status == 200:
            text = answer(app, f"/gradio_api/call{name}/{json.loads(text)['event_id']}")[2]
            assert '"error": null' not in text, (name, data)
    assert "Traceback" not in app.log.read_text()


def _blocked(path: Path, kind: str) -> None:
    """Put something in the place of a folder or a file of the app."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.mkdir()


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (".", "loop"),
        ("app", "file"),
        ("app/lock", "folder"),
        ("app/uploads", "file"),
        ("app/uploads", "pipe"),
        ("app/uploads", "loop"),
    ],
)
def test_what_is_in_the_place_of_the_apps_folders_is_named_in_one_line(
    where: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    _blocked(out / where, kind)
    with pytest.raises(SystemExit) as error:
        main(["app", "--demo", "--no-browser", "--out", str(out)])
    assert error.value.code == 2
    assert str(out) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "/dev/null/x"], "/dev/null/x"),
        (["--out", "/proc/x"], "/proc/x"),
        (["--out", "x" * 300], "File name too long"),
        (["--port", "70000"], "70000"),
        (["--port", "0"], "--port"),
        (["--host", "192.0.2.1", "--no-auth"], "192.0.2.1"),
        (["--host", "nowhere.invalid", "--no-auth"], "nowhere.invalid"),
        (["--auth", "me:"], "USER:PASSWORD"),
    ],
)
def test_a_place_or_an_address_that_cannot_be_used_is_named_in_one_line(
    options: list[str], message: str, refusal: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal("app", "--demo", "--no-browser", *options)


def test_a_taken_port_is_named_before_the_networks_are_loaded(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(urllib.parse.urlsplit(app.url).port)
    with pytest.raises(SystemExit):
        main(["app", "--demo", "--no-browser", "--out", str(tmp_path / "out"), "--port", port])
    assert f"port {port}: Address already in use" in capsys.readouterr().err


def test_a_second_app_is_refused_also_where_the_lock_was_removed_or_through_a_link(
    app: App, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    words = ["app", "--demo", "--no-browser", "--out"]
    assert "another app is using" in refusal(*words, app.out)
    (app.out / "app" / "lock").unlink()
    (tmp_path / "link").symlink_to(app.out)
    assert "another app is using" in refusal(*words, tmp_path / "link")


@needs_browser
def test_a_killed_app_has_everything_when_it_is_started_again(user: User, app: App, truths: list[Truth]) -> None:
    before, shown = steps(app), objects(app, largest(truths).photo)
    app.end(signal.SIGKILL)
    again = App(Path(truths[0].photo).parent, app.out, "--points-per-side", "12")
    try:
        person = User(user.page.context.browser.new_page(), again.url)
        person.wait_for("#progress", f"{PHOTOS + 1} of {PHOTOS + 1} photos")
        assert steps(again) == before
        assert objects(again, largest(truths).photo) == shown
        person.page.context.close()
    finally:
        again.end()

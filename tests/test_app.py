"""The app as a server: what programs get from it, what it refuses, and what it keeps from others."""

import http.client
import json
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image

from no_time_to_train.data.rle import decode_mask
from no_time_to_train.errors import UserError
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train_extras.app.app_command import is_own_export, read_login
from tests.attacks.test_cases import cases_in
from tests.conftest import Patch, Photo, Refusal, iou
from timing.app_user import App, inside, post

pytest.importorskip("gradio", reason="the app's extra is not installed")


@pytest.fixture(scope="module")
def app(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app in which the object was shown."""
    out = tmp_path_factory.mktemp("app") / "out"
    with App(photo.path, out, "--points-per-side", "12", "--api") as running:
        post(running.url, "show", [photo.path.name, "thing", [inside(photo.mask)]])
        yield running
    assert "/no_time_to_train_extras/app/" not in running.log.read_text(), "a traceback of this package"


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
    head = b'--border\r\nContent-Disposition: form-data; name="files"; filename="large.jpg"\r\n\r\n'
    body = head + bytes(51 * 2**20) + b"\r\n--border--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=border"}
    request = urllib.request.Request(f"{app.url}gradio_api/upload", body, kind)
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as error:
        urllib.request.urlopen(request)
    assert getattr(error.value, "code", 413) == 413


@pytest.mark.parametrize("call", [one for one in cases_in("app_calls") if "endpoint" in one])
def test_a_mistake_in_a_call_is_answered_in_one_line(app: App, call: dict[str, Any]) -> None:
    text = post(app.url, call["endpoint"], call["data"])
    assert "event: error" in text
    assert call["refused"] in text
    assert "Traceback" not in text + app.log.read_text()


def test_programs_find_a_class_as_soon_as_it_is_shown_by_gradios_client_and_by_http(
    app: App, photo: Photo, tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file

    client = Client(app.url, verbose=False)
    found = client.predict(photo=handle_file(str(photo.path)), score=0.3, api_name="/segment")
    assert found["images"][0]["file_name"] == photo.path.name
    assert {one["name"] for one in found["categories"]} == {"thing"}
    exif = Image.Exif()
    exif[0x0112] = 6  # as phones store photos that were taken upright
    Image.new("RGB", (80, 60)).save(tmp_path / "phone.jpg", exif=exif)
    found = client.predict(photo=handle_file(tmp_path / "phone.jpg"), api_name="/segment")
    assert (found["images"][0]["width"], found["images"][0]["height"]) == (60, 80)
    (memory,) = json.loads(answer(app, "/api/memories")[2])
    assert [one["name"] for one in memory["classes"]] == ["thing"]
    request = urllib.request.Request(f"{app.url}api/segment?threshold=0.1", photo.path.read_bytes())
    with urllib.request.urlopen(request, timeout=60) as response:
        masks = [decode_mask(one["segmentation"]) for one in json.load(response)["annotations"]]
    assert max(iou(mask, photo.mask) for mask in masks) > 0.8


def answer(
    app: App, path: str, body: Any = None, method: str = "", client: str = "127.0.0.1", **headers: str
) -> tuple[int, Any, str]:
    """The status, the headers and the text of an answer; underscores in names of headers are dashes."""
    place = urllib.parse.urlsplit(app.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30, source_address=(client, 0))
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
        assert (status, headers["access-control-allow-origin"], len(text) < 200) == (403, None, True)


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


@pytest.mark.parametrize("call", [one for one in cases_in("app_calls") if "path" in one])
def test_a_call_of_wrong_types_is_refused_in_one_line(app: App, call: dict[str, Any]) -> None:
    status, _, text = answer(app, f"/gradio_api/{call['path']}", call["body"])
    assert status in (400, 404)
    assert len(text.splitlines()) == 1
    assert "Traceback" not in app.log.read_text()


def test_an_upload_that_is_sent_too_slowly_is_ended(app: App) -> None:
    place = urllib.parse.urlsplit(app.url)
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 10000\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as client:
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_passwords_are_not_guessed_quickly_links_lead_to_no_file_and_the_page_takes_any_values(
    photo: Photo, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("NO_TIME_TO_TRAIN_PASSWORD", "secret\n")
    monkeypatch.setenv("NO_TIME_TO_TRAIN_TOKEN", "a token\n")
    form, kind = "username=me&password=", {"content_type": "application/x-www-form-urlencoded"}
    secret, folder = tmp_path / "elsewhere" / "secret.txt", tmp_path / "out" / "app"
    for made in (secret.parent, folder):
        made.mkdir(parents=True)
    secret.write_text("secret")
    for name in ("thumbnails", "uploads"):
        (folder / name).symlink_to(secret.parent)
    options = "--points-per-side", "4", "--auth", "me", "--api"
    with App(photo.path, tmp_path / "out", *options) as locked:
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
        assert answer(locked, "/login", f"{form}secret", client="127.0.0.2", **kind)[0] == 200, "the owner gets in"


@pytest.mark.slow
def test_two_thousand_calls_of_any_values_are_answered_in_one_line(app: App) -> None:
    schema = json.loads(answer(app, "/gradio_api/info")[2])["named_endpoints"]
    random = Random(0)
    simple: list[Any] = [None, True, -1, 0, 10**30, 0.5, float("nan"), "", "photo.png", "right", "cup", "x" * 5000, {}]

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


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("where", "block"),
    [
        (".", link_to_itself),
        ("app", Path.touch),
        ("app/lock", Path.mkdir),
        ("app/uploads", Path.touch),
        ("app/uploads", os.mkfifo),
        ("app/uploads", link_to_itself),
    ],
)
def test_what_is_in_the_place_of_the_apps_folders_is_named_in_one_line(
    where: str, block: Any, tmp_path: Path, refusal: Refusal
) -> None:
    out = tmp_path / "out"
    (out / where).parent.mkdir(parents=True, exist_ok=True)
    block(out / where)
    assert str(out) in refusal("app", "--demo", "--no-browser", "--out", out)


def test_a_taken_port_and_a_folder_that_another_app_uses_are_named(app: App, tmp_path: Path, refusal: Refusal) -> None:
    words, port = ["app", "--demo", "--no-browser", "--out"], urllib.parse.urlsplit(app.url).port
    assert f"port {port}: Address already in use" in refusal(*words, tmp_path / "out", "--port", port)
    assert "another app is using" in refusal(*words, app.out)
    (app.out / "app" / "lock").unlink()
    (tmp_path / "link").symlink_to(app.out)
    assert "another app is using" in refusal(*words, tmp_path / "link")


def test_the_download_holds_all_files_also_of_photos_from_before_1980(tmp_path: Path, monkeypatch: Patch) -> None:
    from no_time_to_train_extras.app import actions

    monkeypatch.setattr(actions, "get_upload_folder", lambda: str(tmp_path))
    (tmp_path / "results/yolo").mkdir(parents=True)
    for name in ("index.html", "yolo/a.png"):
        (tmp_path / "results" / name).write_text(name)
        os.utime(tmp_path / "results" / name, (0, 0))  # which ZIP cannot state
    actions.packed(tmp_path / "results", "results")
    with ZipFile(next(tmp_path.rglob("results.zip"))) as archive:
        assert {"index.html", "yolo/a.png"} <= {*archive.namelist()}
        assert archive.read("yolo/a.png") == b"yolo/a.png"


def test_a_project_does_not_begin_with_the_references_that_it_exported_itself(tmp_path: Path) -> None:
    memory = tmp_path / "out/results/references.memory"
    memory.parent.mkdir(parents=True)
    assert not is_own_export(memory, tmp_path / "out"), "it is of segment"
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with record_stage(memory.parent, "app", {}):
        pass
    assert is_own_export(tmp_path / "link/results/references.memory", tmp_path / "out")
    assert not is_own_export(memory, tmp_path / "another")


def test_a_user_that_is_empty_is_named(monkeypatch: Patch) -> None:
    monkeypatch.setenv("NO_TIME_TO_TRAIN_PASSWORD", "secret")
    with pytest.raises(UserError, match="--auth has no user"):
        read_login("")


def test_ctrl_d_where_the_password_is_asked_for_is_one_line(monkeypatch: Patch) -> None:
    def end_of_input(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("no_time_to_train_extras.app.app_command.getpass", end_of_input)
    with pytest.raises(UserError, match="--auth eva has no password"):
        read_login("eva")

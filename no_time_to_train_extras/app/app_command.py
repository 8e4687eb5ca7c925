"""``app``: show objects with a click in the browser, and find them in all photos."""

import glob
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from getpass import getpass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from no_time_to_train.commands.options import check_images
from no_time_to_train.errors import UserError, UserNotice, plural
from no_time_to_train.files import is_file, read_json, real_path
from no_time_to_train.method.settings import ContextRatio, ModeName, PointsPerSide, Settings, Tiles, of_mode
from no_time_to_train.networks.registry import Precision, PresetName, find_networks
from no_time_to_train.pipeline.replace_folder import MOVED, is_finished
from no_time_to_train.pipeline.run_record import FILE_NAME, read_sections
from no_time_to_train.ranges import Fraction, Positive
from no_time_to_train_extras.server.addresses import Port, check_address, is_loopback, plain_host
from no_time_to_train_extras.server.serve_command import TOKEN

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]

#: The variable of the environment with the password of ``--auth``.
PASSWORD = "NO_TIME_TO_TRAIN_PASSWORD"

#: Point prompts per side: with a GPU, without one (where all photos would take long), and for the nano networks.
POINTS_WITH_GPU, POINTS_ON_CPU, POINTS_OF_NANO = 32, 16, 24

#: Drawn photos of ``--demo``.
DRAWN = 12


def app(
    *,
    images: Sequence[str] = (),
    out: Path = Path("app"),
    demo: bool = False,
    results: Path | None = None,
    memory: Sequence[Path] = (),
    references: Path | None = None,
    threshold: Fraction = 0.5,
    preset: PresetName = "fast",
    sam2: str | None = None,
    dinov2: str | None = None,
    nano: bool = False,
    points_per_side: PointsPerSide | None = None,
    mode: ModeName = "paper",
    tiles: Tiles = Settings.tiles,
    max_instances: Positive = Settings.max_instances,
    context_ratio: ContextRatio | None = None,
    precision: Precision = "float32",
    device: str | None = None,
    host: str = "127.0.0.1",
    port: Port | None = None,
    auth: str | None = None,
    no_auth: bool = False,
    no_browser: bool = False,
    api: bool = False,
) -> None:
    """Show objects with a click in the browser, find them in all photos, and correct what was found.

    Args:
        images: Folders, globs, images or videos. More photos can be uploaded in the browser.
        out: Folder of the project and of the exports. The same folder resumes.
        demo: Try it with nothing to download: drawn scenes and the nano networks.
        results: Finished folder of segment or of an export: its photos, and its classes to begin with.
        memory: Memory with classes to begin with, of segment --save-memory or of an export. May be given several times.
        references: Folder or annotation file with references to begin with (docs/your_own_objects.md). Those in the
            photos themselves appear there as confirmed.
        threshold: The lowest score of an object, from 0 to 1, of classes for which none is chosen in the browser.
        preset: accurate, balanced or fast networks (docs/speed.md). Every photo is searched with a grid of points.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        dinov2: DINOv2 by its checkpoint's name or path.
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        points_per_side: Point prompts per side of the grid. Default: 32 with a GPU, 16 without one, 24 with --nano.
        mode: paper scores and merges masks as the paper does; best has settings that found more on drawn scenes
            (docs/beyond_the_paper.md). Its scores are lower.
        tiles: For small objects: look at each photo as a whole and at N x N overlapping tiles of it (N * N + 1 times
            the work; docs/beyond_the_paper.md).
        max_instances: The most objects that are found in a photo. The page says where a photo has that many.
        context_ratio: Context around a reference, relative to its longer side. Default: what suits the encoder.
        precision: What the networks compute in. bfloat16 is faster where the device has instructions for it.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.
        host: Address to listen on. All others than this computer's own need --auth or --no-auth.
        port: Port to listen on. Default: the first free one from 7860 on.
        auth: USER, and the password that the browser asks for: from NO_TIME_TO_TRAIN_PASSWORD in the environment, or
            typed where the app is started. Others on this computer can read that of USER:PASSWORD.
        no_auth: Let everybody who reaches --host see and change everything.
        no_browser: Do not open the browser.
        api: Answer programs at /api as serve does, with the classes and thresholds of the page (docs/server.md). Where
            --auth is given, they need a token: NO_TIME_TO_TRAIN_TOKEN in the environment.

    Examples:
        no-time-to-train app --demo
        no-time-to-train app --images photos/ --out boats/
    """
    host = plain_host(host)
    login = check_access(host, auth, no_auth)
    token = os.environ.pop(TOKEN, "").strip() if api else None  # files of secrets end with a new line
    if api and login and not token:
        raise UserError(f"--api with --auth needs a token for programs: set {TOKEN}")
    nano = nano or demo
    if nano and (other := sam2 or dinov2):
        option = "--demo" if demo else "--nano"
        raise UserError(f"{option} and {other} both choose the networks: leave one of them out")
    if results is not None:
        if not is_finished(results):
            raise UserError(f"--results {results} is no finished folder of segment")
        memory = [*memory, results / "references.memory"]
    memory = [path for path in memory if not is_own_export(path, out)]  # the project has these references
    if not (images or demo or results):
        raise UserError("which photos? Give --images FOLDER, or --demo to try the app with drawn scenes")
    check_images(images)
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"--out {out} is {'a file' if out.is_file() else 'no folder'}: give a folder")
    for path in [*memory, *([references] if references else [])]:
        if not path.exists():
            raise UserError(f"not found: {path}")
    networks = ("nano", None) if nano else (sam2, dinov2)
    find_networks(*networks, preset=None if nano else preset)
    if find_spec("gradio") is None:
        raise UserError("the app needs Gradio: pip install 'gradio>=6.30'")

    from no_time_to_train.data.reference_forms import find_references

    examples = find_references(references).references if references else []
    for example in examples:
        example.check_size()

    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
    from no_time_to_train.data.memory_files import notice_repeated
    from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
    from no_time_to_train.networks.devices import default_device
    from no_time_to_train_extras.app.page import serve
    from no_time_to_train_extras.app.page_service import PageService
    from no_time_to_train_extras.app.photos import UPLOADS, find_photos
    from no_time_to_train_extras.app.references import take_annotations
    from no_time_to_train_extras.app.workspace import Workspace

    check_address(host, port)
    folder = out / "app"
    lock = lock_folder(folder, out, UPLOADS)
    if demo and not images:
        if not (out / "photos").exists():
            write_coco(out / "photos", NOVEL_CLASSES, DRAWN, 0)
        images = [str(out / "photos" / "images")]
    if results is not None:
        images = [*images, *photos_of(results)]
    photos, videos = find_photos(images, folder / UPLOADS, folder)
    with_gpu = (device or default_device()) != "cpu"
    side = points_per_side or (POINTS_OF_NANO if nano else POINTS_WITH_GPU if with_gpu else POINTS_ON_CPU)
    segmenter = ReferenceSegmenter.from_pretrained(
        *networks,
        device=device,
        settings=Settings(points_per_side=side, tiles=tiles, max_instances=max_instances, **of_mode(mode)),
        context_ratio=context_ratio,
        precision=precision,
        preset=None if nano else preset,
    )
    count = plural(len(photos), "photo") + (f", {plural(len(videos.all), 'video')}" if videos.all else "")
    print(f"{count}; {'nano networks' if nano else f'preset {preset}'}, {side}x{side} points")
    for path in memory:
        segmenter.load_memory(path)
    annotations, others = take_annotations(examples, photos, segmenter)
    segmenter.add_references(others)
    workspace = Workspace(segmenter, photos, videos, folder, threshold)
    if segmenter.memory is not None:
        notice_repeated(segmenter.memory)
    if absent := workspace.absent():
        warnings.warn(absent, UserNotice, stacklevel=1)
    if references:
        workspace.confirm(annotations, references)
    programs = PageService(workspace) if api else None
    guard = None if programs is None else programs.guarded(host, token or None)
    serve(workspace, out / "results", folder, host, port, login, browser=not no_browser, api=guard)
    if programs is not None:
        programs.queue.thread.shutdown(wait=False, cancel_futures=True)
    lock.release()


def is_own_export(memory: Path, out: Path) -> bool:
    """Whether a memory is the one that a project exported to its own folder."""
    results = out / "results"
    return real_path(memory) == real_path(results / "references.memory") and "app" in read_sections(results / FILE_NAME)


def lock_folder(folder: Path, out: Path, uploads: str) -> FileLock:
    """Make the folder of the app, and keep other processes from using it, also through links.

    Returns:
        What must be held as long as the folder is used.
    """
    lock = FileLock(folder / "lock")
    if (folder / "lock").is_file() and (folder / "lock").stat().st_size:  # which a lock would empty
        raise UserError(f"{folder / 'lock'} is not the lock of an app: move it, or choose another --out")
    try:
        (folder / uploads).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        if fcntl is not None:  # the lock's file can be removed, by a cleaner or a program that syncs; the folder cannot
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                lock.release()
                raise
            except OSError:  # network file systems lock no folders
                os.close(handle)
    except (Timeout, BlockingIOError) as error:
        raise UserError(f"another app is using {out}: close it, or choose another --out") from error
    except (OSError, NotImplementedError) as error:
        raise UserError(f"--out {out} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    return lock


def photos_of(results: Path) -> list[str]:
    """The photos of a finished folder of ``segment``; frames of videos are left out."""
    try:
        entries = [entry for entry in read_json(results / "images.json")["images"] if "video" not in entry]
        photos = [results / entry["path"] for entry in entries]
        if lost := [photo for photo in photos if not is_file(photo)]:
            raise UserError(f"image not found: {lost[0]}; {MOVED}")
        return [glob.escape(str(photo)) for photo in photos]
    except (KeyError, TypeError) as error:
        raise UserError(f"{results / 'images.json'} is not a list of images by segment") from error


def check_access(host: str, auth: str | None, no_auth: bool) -> tuple[str, str] | None:
    """Check who may reach the app.

    Returns:
        User and password; None where nobody is asked.
    """
    if auth is not None and no_auth:
        raise UserError("--auth and --no-auth contradict each other: leave one of them out")
    if not is_loopback(host) and auth is None and not no_auth:
        raise UserError(f"--host {host} lets other computers in: give --auth USER:PASSWORD, or --no-auth for everybody")
    return None if auth is None else read_login(auth)


def read_login(auth: str) -> tuple[str, str]:
    """The user and the password of ``--auth``; the password may be in the environment, or is asked for."""
    user, _, password = auth.partition(":")
    if not password:
        password = os.environ.pop(PASSWORD, "").rstrip("\r\n")  # files of secrets end with a new line
        if not password and sys.stdin is not None and sys.stdin.isatty():
            with suppress(EOFError):  # Ctrl-D
                password = getpass(f"password of {user}: ")
    if not user:
        raise UserError("--auth has no user: give USER, or USER:PASSWORD")
    if not password:
        raise UserError(f"--auth {user} has no password: set {PASSWORD}, or give --auth USER:PASSWORD")
    sys.argv = [word.replace(auth, user) for word in sys.argv]  # run.json has the command
    return user, password

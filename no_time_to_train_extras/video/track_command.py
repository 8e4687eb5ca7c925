"""``track``: find your own objects in a video or a live picture, every object once, with its identity."""

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

from no_time_to_train.commands.options import NetworkOptions, ReferenceOptions, read_thresholds
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.files import check_memories
from no_time_to_train.pipeline.processes import signal_of
from no_time_to_train.pipeline.replace_folder import check_output
from no_time_to_train.ranges import Positive, Range
from no_time_to_train_extras.video.live import is_live

Seconds = Annotated[float, Range(0)]

#: Frames per second.
Rate = Annotated[float, Range(0.01, 240)]


def track(
    *,
    references: ReferenceOptions,
    memory: Sequence[Path] = (),
    images: str,
    out: Path | None = None,
    overwrite: bool = False,
    format: Sequence[Literal["video", "mots", "youtube-vis"]] = (),
    jsonl: Literal["-"] | None = None,
    threshold: str = "0.5",
    class_score: Sequence[str] = (),
    every: Positive = 1,
    propagate: Positive = 1,
    returns: Seconds = 10.0,
    duration: str | None = None,
    watch: bool = False,
    fps: Rate = 25.0,
    line: Sequence[str] = (),
    zone: Sequence[str] = (),
    networks: NetworkOptions,
) -> None:
    """Track your own objects: show a few of them, and get every one in a video or a live picture, with its identity.

    Args:
        references: References of the objects.
        memory: Memory kept from an earlier run of segment. May be given several times.
        images: A video, a folder with its frames as images, the number of a camera, or the address of a stream, such as
            rtsp://HOST/PATH. Of a camera or a stream, frames are dropped where the networks are slower.
        out: Folder for the results.
        overwrite: Replace finished results in --out, once the new ones are complete.
        format: An annotated video, and the tracks as MOTS text or as JSON of YouTube-VIS (docs/video.md).
        jsonl: Print a line of JSON for each frame as soon as it is known. All else is printed to the standard error.
        threshold: The score that an instance needs to start a track, from 0 to 1, or auto (see segment). A fifth of it
            continues a track.
        class_score: The threshold of one class: NAME=X. May be given several times.
        every: One frame in this many is used.
        propagate: Look for objects in one in this many of these frames; SAM 2's memory carries them through the others.
        returns: Seconds in which an object that was hidden or has left gets its identity back. 0 where none comes back,
            as on a conveyor belt.
        duration: Stop after this much of the video: 60s, 5m or 1h. Also --for.
        watch: Wait for further images in the folder, until Ctrl-C or --for ends the run.
        fps: Frames per second of a folder's images, and of a video that states none.
        line: Count the objects that cross a line, x1,y1,x2,y2 in pixels. May be given several times.
        zone: Count the objects in a zone, and how long each stays: x1,y1,x2,y2,x3,y3,... in pixels. May be given
            several times.
        networks: The networks and their settings.

    Examples:
        no-time-to-train track --references refs/ --images clip.mp4 --out out/
        no-time-to-train track --memory boats.memory --images rtsp://camera/1 --out out/ --for 60s
        no-time-to-train track --references refs/ --images 0 --jsonl - --preset fast
    """
    if not (references.references or references.reference or memory):
        raise UserError("nothing to look for: give --references FOLDER, --reference LABEL:IMAGE:box=..., or --memory")
    if not (out or jsonl):
        raise UserError("nothing to do: give --out FOLDER for the results, or --jsonl -")
    thresholds = read_thresholds(threshold, class_score, references)
    most = seconds_of(duration)
    lines = [points_of("--line", text, fewest=2, most=2) for text in line]
    zones = [points_of("--zone", text, fewest=3) for text in zone]
    references.parse()
    check_memories(memory)
    live = is_live(images)
    if not live and not Path(images).exists():
        raise UserError(f"--images {images}: there is no such file or folder; a stream's address begins with rtsp://")
    if watch and not Path(images).is_dir():
        raise UserError(f"--watch waits for images in a folder: {images} is none")
    if out:
        check_output(out, overwrite)
    networks.check()

    printed = sys.stdout
    with redirect_stdout(sys.stderr) if jsonl else nullcontext():
        examples, found = references.read(memory)
        for example in examples:
            example.check_size()
        if not memory:
            thresholds.check_names({example.label for example in examples})

        from no_time_to_train_extras.video.frames import Frames

        if not live:  # a camera is opened once it is needed
            frames = Frames(images, every, fps, watch, most, out)

        from no_time_to_train.commands.segment import measured_thresholds
        from no_time_to_train_extras.video.track_frames import tracker_settings
        from no_time_to_train_extras.video.track_run import TrackRun

        segmenter = networks.build()
        for path in memory:
            segmenter.load_memory(path)
        segmenter.add_references(examples)
        segmenter.renumber(found.category_ids if found else {})
        thresholds.check_names(segmenter.classes)
        if threshold == "auto":
            thresholds = measured_thresholds(segmenter, thresholds)
        if live:
            frames = Frames(images, every, fps, watch, most, out)
        lowest = {name: thresholds.of(name) for name in segmenter.classes}
        linking = propagate, tracker_settings(returns)
        run = TrackRun(segmenter, frames, lowest, lines, zones, format, *linking, printed if jsonl else None)
        try:
            run.write(out, overwrite) if out else run.track()
        except KeyboardInterrupt as error:
            live_end, end = "its results are incomplete, and cannot be resumed", "run the same command again to resume"
            print(f"interrupted after {run}; {live_end if frames.live else end}")
            sys.exit(128 + signal_of(error))
        finally:
            for reason in frames.skipped:
                print(f"skipped: {one_line(reason)}", file=sys.stderr)
        print(f"{run}; open {out / 'index.html'}" if out else run)
        if frames.lost:
            raise UserError(frames.lost)


def seconds_of(duration: str | None) -> float | None:
    """The seconds that ``--for`` states: 90, 60s, 5m or 1h."""
    if duration is None:
        return None
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", duration)
    if not matched or not float(matched[1]):
        raise UserError(f"--for {duration}: write a time such as 60s, 5m or 1h")
    return float(matched[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[matched[2]]


def points_of(option: str, text: str, fewest: int, most: int = 1000) -> list[list[float]]:
    """The different points that ``--line`` or ``--zone`` states."""
    numbers = text.split(",")
    try:
        points = [[float(x), float(y)] for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    except ValueError:
        points = []
    finite = all(abs(number) < 1e6 for point in points for number in point)
    if not (finite and fewest <= len(set(map(tuple, points))) == len(points) <= most):
        form = "x1,y1,x2,y2" if most == 2 else "x1,y1,x2,y2,x3,y3,..."
        raise UserError(f"{option} {text}: write {form}, different points in pixels")
    return points

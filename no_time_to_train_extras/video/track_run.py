"""The run behind ``no-time-to-train track``."""

import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.errors import UserError, UserNotice, plural
from no_time_to_train.files import remove_leftovers_in
from no_time_to_train.overlap import Worker, read_ahead
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.replace_folder import output_of_run, remove_unchanged, written_files
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train.pipeline.segment_images import depends_on
from no_time_to_train.pipeline.summary import count_labels
from no_time_to_train_extras.video.crossings import Points
from no_time_to_train_extras.video.frames import Frame, Frames
from no_time_to_train_extras.video.track_files import TrackFiles, database_errors
from no_time_to_train_extras.video.track_frames import TrackedFrame, track_frames, tracker_settings
from no_time_to_train_extras.video.tracker import Tracker, TrackerSettings

#: The most frames, and the most seconds of work, that a killed run loses.
FRAMES_AT_ONCE, SECONDS_AT_ONCE = 64, 5.0


@dataclass
class TrackRun:
    """Tracks the objects of a memory in a video. As text, what was done.

    Attributes:
        thresholds: See :func:`track_frames`.
        lines: The two ends of each line, x and y in pixels.
        zones: The corners of each zone, x and y in pixels.
        formats: Further formats to write, see :class:`TrackFiles`.
        propagate: See :func:`track_frames`.
        jsonl: Where to write a line of JSON for each frame as soon as it is known.
        done: The number of frames in the results.
        done_before: How many of them an earlier, unfinished run had done.
        began: When work on the others began, as of ``time.monotonic``.
        objects: The number of different objects of each class, once the results are written.
    """

    segmenter: ReferenceSegmenter
    frames: Frames
    thresholds: Mapping[str, float]
    lines: Sequence[Points] = ()
    zones: Sequence[Points] = ()
    formats: Sequence[str] = ()
    propagate: int = 1
    settings: TrackerSettings = field(default_factory=tracker_settings)
    jsonl: TextIO | None = None
    done: int = 0
    done_before: int = 0
    began: float = field(default_factory=time.monotonic)
    objects: dict[str, int] | None = None

    @property
    def at_once(self) -> int:
        """Frames that the encoders take at once; those that come as they are taken do not wait for others."""
        return 1 if self.frames.live else self.segmenter.segmenter.images.count

    def __str__(self) -> str:
        rate = (self.done - self.done_before) / max(time.monotonic() - self.began, 1e-6)
        texts = [f"{plural(self.done, 'frame')} ({rate:.1f} a second)"]
        texts += [f"{self.done_before} of them by the run before"] * bool(self.done_before)
        texts += [f"{self.frames.dropped} dropped"] * bool(self.frames.dropped)
        if self.objects is not None:
            counted = plural(sum(self.objects.values()), "object")
            texts.append(f"{counted}: {count_labels(self.objects)}" if self.objects else counted)
        return ", ".join(texts)

    def write(self, out: Path, overwrite: bool = False) -> None:
        """Track the objects and write them to a folder (see :class:`TrackFiles`).

        A run on a file that was stopped or killed resumes. Ctrl-C ends a run on a camera or a stream, whose results are
        complete then. Finished results are replaced as a whole, at the end.

        Args:
            overwrite: Whether finished results in the folder may be replaced.
        """
        assert self.segmenter.memory is not None
        start = time.time()
        with output_of_run(out, overwrite) as folder:
            journal = None if self.frames.live else Journal(folder / "results.json")
            running = nullcontext() if journal is None else journal.run(self._depends_on())
            with running, _nothing_left(folder, journal) as earlier, database_errors():
                remove_leftovers_in(folder)
                places = self.lines, self.zones, self.formats, self.frames.rate
                files = TrackFiles(folder, self.frames.name, self.segmenter.memory, *places)
                try:
                    self.track(files, journal)
                except KeyboardInterrupt:
                    if journal is None or len(journal.items):  # else the same command does all of it again
                        self.objects = files.finish()
                        remove_unchanged(earlier)
                    raise
                if not self.done:
                    reason = self.frames.lost or ", ".join(self.frames.skipped[:1])
                    raise UserError(f"no frame of {self.frames.name} can be read: {reason}")
                about = {"tracker": asdict(self.settings), "precision": self.segmenter.precision}
                with record_stage(folder, "track", {}, start, **about, dropped=self.frames.dropped) as section:
                    section["command"] = section["command"].replace(self.frames.source, self.frames.shown)
                    self.objects = files.finish()
                remove_unchanged(earlier)

    def _depends_on(self) -> dict[str, Any]:
        """What the tracks depend on, as JSON values."""
        of_tracks = {"thresholds": dict(self.thresholds), "tracker": asdict(self.settings), "propagate": self.propagate}
        return {**depends_on(self.segmenter), **of_tracks, **self.frames.identity()}

    def track(self, files: TrackFiles | None = None, journal: Journal | None = None) -> None:
        """Track all frames, or take from the journal what an earlier run found."""
        try:
            frames = iter(self.frames) if self.frames.live else read_ahead(self.frames, self.at_once)
            bar = tqdm(frames, "track", total=self.frames.count, unit=" frame")
            with Worker[None]() as worker, bar:
                for frame in self._tracked(iter(bar), journal):
                    self.done += 1
                    if self.done == 1:
                        self._notice_outside(*frame.instances.image.shape[:2])
                    if self.frames.dropped:
                        bar.set_postfix_str(f"{self.frames.dropped} dropped", refresh=False)
                    if self.jsonl is not None:
                        print(json.dumps(as_line(frame)), file=self.jsonl, flush=True)
                    if files is not None:
                        worker.start(partial(files.add, frame))  # while the networks work on the next one
                worker.finish()
        except KeyboardInterrupt:
            if not self.frames.live:
                raise
            print("stopped", file=sys.stderr)
        finally:
            self.frames.close()

    def _notice_outside(self, height: int, width: int) -> None:
        """Name the lines and zones that lie outside of the picture, as those for another resolution do."""
        for points in [*self.lines, *self.zones]:
            if (np.min(points, 0) >= (width, height)).any() or (np.max(points, 0) < 0).any():
                text = ",".join(f"{number:g}" for point in points for number in point)
                warnings.warn(f"{text} lies outside of the {width}x{height} picture", UserNotice, stacklevel=2)

    def _tracked(self, frames: Iterator[Frame], journal: Journal | None) -> Iterator[TrackedFrame]:
        """The tracked frames, those of the journal first."""
        assert self.segmenter.memory is not None
        tracker, chunks, last = Tracker(self.settings), 0, None
        for chunks in count():
            chunk = None if journal is None else journal.get(chunks)
            if chunk is None:
                break
            for record in chunk["frames"]:
                self.done_before, last = self.done_before + 1, next(frames)
                yield TrackedFrame.from_record(record, last.image, self.segmenter.memory.categories)
            tracker.restore(chunk["state"])
        self.began = written = time.monotonic()
        records: list[dict[str, Any]] = []
        words = self.segmenter, frames, self.thresholds, tracker, self.propagate, last, self.at_once, self.frames.live
        for frame in track_frames(*words):
            if journal is not None:
                records.append(frame.record)
                enough = len(records) >= FRAMES_AT_ONCE or time.monotonic() - written > SECONDS_AT_ONCE
                if enough and self.done % self.propagate == 0:  # what is carried starts from here
                    journal.add(chunks, {"frames": records, "state": tracker.state()})
                    chunks, records, written = chunks + 1, [], time.monotonic()
            yield frame


def as_line(frame: TrackedFrame) -> dict[str, Any]:
    """What ``--jsonl`` prints of a frame: its number, its time in seconds, and its objects; boxes xyxy in pixels."""
    values = zip(frame.instances, frame.record["results"], strict=True)
    objects = [
        {"track": record["track_id"], "class": one.label, "score": round(one.score, 4), "box": one.box}
        | {"segmentation": record["segmentation"]}
        for one, record in values
    ]
    return {"frame": frame.number, "seconds": round(frame.seconds, 3), "objects": objects}


@contextmanager
def _nothing_left(folder: Path, journal: Journal | None) -> Iterator[dict[Path, tuple[int, int]]]:
    """The results that are there; a run that fails and cannot be resumed removes its own, to be repeated."""
    earlier = written_files(folder)
    try:
        yield earlier
    except BaseException:  # including Ctrl-C
        if journal is not None and not len(journal.items):
            for path in written_files(folder).keys() - earlier.keys():
                path.unlink(missing_ok=True)
        raise

"""The run behind ``no-time-to-train track``."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import remove_leftovers_in
from no_time_to_train.overlap import read_ahead
from no_time_to_train.pipeline.journal import Journal
from no_time_to_train.pipeline.replace_folder import output_of_run, remove_unchanged, written_files
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train.pipeline.segment_images import depends_on
from no_time_to_train.pipeline.summary import Thresholds, count_labels
from no_time_to_train_extras.video.crossings import Places
from no_time_to_train_extras.video.frames import Frame, Frames
from no_time_to_train_extras.video.track_files import TrackFiles
from no_time_to_train_extras.video.track_frames import SETTINGS, TrackedFrame, track_frames
from no_time_to_train_extras.video.tracker import Tracker

#: The most frames, and the most seconds of work, that a killed run loses.
FRAMES_AT_ONCE, SECONDS_AT_ONCE = 64, 5.0


@dataclass
class TrackSummary:
    """What a run did.

    Attributes:
        frames: Frames in the results.
        seconds: How long the run worked on those of them that no earlier one had done.
        done_before: Frames that an earlier, unfinished run had done.
        dropped: Frames of a camera or a stream that came and went while the networks worked.
        objects: Different objects of each class.
        interrupted: Whether Ctrl-C stopped the run.
    """

    frames: int = 0
    seconds: float = 0.0
    done_before: int = 0
    dropped: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False

    def __str__(self) -> str:
        new = self.frames - self.done_before
        rate = f" ({new / self.seconds:.1f} a second)" if new and self.seconds else ""
        before = f", {self.done_before} of them by the run before" if self.done_before else ""
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        objects = plural(sum(self.objects.values()), "object")
        classes = f": {count_labels(self.objects)}" if self.objects else ""
        return f"{plural(self.frames, 'frame')}{rate}{before}{dropped}, {objects}{classes}"


def track_video(
    segmenter: ReferenceSegmenter,
    frames: Frames,
    out: Path | None,
    thresholds: Thresholds,
    places: Places,
    formats: Sequence[str] = (),
    overwrite: bool = False,
    lines: TextIO | None = None,
) -> TrackSummary:
    """Track the objects of a memory in a video, and write them to a folder (see :class:`TrackFiles`).

    A run on a file that was stopped or killed resumes. Ctrl-C ends a run on a camera or a stream, whose results are
    complete then. Finished results are replaced as a whole, at the end.

    Args:
        out: The folder; None writes none.
        overwrite: Whether finished results in the folder may be replaced.
        lines: Where to write a line of JSON for each frame as soon as it is known.
    """
    assert segmenter.memory is not None
    summary = TrackSummary()
    run = _Run(segmenter, frames, thresholds, summary, lines)
    if out is None:
        run.track(None, None)
        return summary
    try:
        with output_of_run(out, overwrite) as folder:
            journal = None if frames.live else Journal(folder / "results.json")
            with nullcontext() if journal is None else journal.run(run.depends_on()):
                remove_leftovers_in(folder)
                earlier = written_files(folder)
                files = TrackFiles(folder, frames.name, segmenter.memory, thresholds, places, formats, frames.rate)
                try:
                    run.track(files, journal)
                except KeyboardInterrupt:
                    summary.objects = files.finish()
                    remove_unchanged(earlier)
                    raise
                if not summary.frames:
                    raise UserError(f"no frame of {frames.name} can be read: {', '.join(frames.skipped[:1])}")
                about = {"tracker": asdict(SETTINGS), "precision": segmenter.precision, "dropped": summary.dropped}
                with record_stage(folder, "track", {}, **about) as section:
                    section["command"] = section["command"].replace(str(frames.source), frames.shown)
                    summary.objects = files.finish()
                remove_unchanged(earlier)
    except KeyboardInterrupt:
        summary.interrupted = True
    return summary


class _Run:
    """One attempt to track a video."""

    def __init__(
        self,
        segmenter: ReferenceSegmenter,
        frames: Frames,
        thresholds: Thresholds,
        summary: TrackSummary,
        lines: TextIO | None,
    ) -> None:
        self.segmenter, self.frames, self.summary, self.lines = segmenter, frames, summary, lines
        self.thresholds = {name: thresholds.of(name) for name in segmenter.classes}
        self.tracker, self.began = Tracker(SETTINGS), time.monotonic()

    def depends_on(self) -> dict[str, Any]:
        """What the tracks depend on, as JSON values."""
        of_tracks = {"thresholds": self.thresholds, "tracker": asdict(SETTINGS), **self.frames.identity()}
        return {**depends_on(self.segmenter), **of_tracks}

    def track(self, files: TrackFiles | None, journal: Journal | None) -> None:
        """Track all frames, or take from the journal what an earlier attempt found."""
        try:
            frames = iter(self.frames) if self.frames.live else read_ahead(self.frames)
            with tqdm(frames, "track", total=self.frames.count, unit=" frame") as bar:
                for frame in self._tracked(iter(bar), journal):
                    self.summary.frames += 1
                    self.summary.dropped = self.frames.dropped
                    if self.summary.dropped:
                        bar.set_postfix_str(f"{self.summary.dropped} dropped", refresh=False)
                    if files is not None:
                        files.add(frame)
                    if self.lines is not None:
                        print(json.dumps(as_line(frame)), file=self.lines, flush=True)
        except KeyboardInterrupt:
            if not self.frames.live:
                raise
            print("stopped by Ctrl-C", file=sys.stderr)
        finally:
            self.summary.seconds = time.monotonic() - self.began
            self.frames.close()

    def _tracked(self, frames: Iterator[Frame], journal: Journal | None) -> Iterator[TrackedFrame]:
        """The tracked frames, those of the journal first."""
        assert self.segmenter.memory is not None
        categories = self.segmenter.memory.categories
        chunks = 0
        for chunks in count():
            chunk = None if journal is None else journal.get(chunks)
            if chunk is None:
                break
            for record in chunk["frames"]:
                self.summary.done_before += 1
                yield TrackedFrame.from_record(record, next(frames).image, categories)
            self.tracker.restore(chunk["state"])
        began = self.began = time.monotonic()
        tracked = track_frames(self.segmenter, frames, self.thresholds, self.tracker)
        if journal is None:
            yield from tracked
            return
        records = []
        for frame in tracked:
            records.append(frame.to_record())
            if len(records) >= FRAMES_AT_ONCE or time.monotonic() - began > SECONDS_AT_ONCE:
                journal.add(chunks, {"frames": records, "state": self.tracker.state()})
                chunks, records, began = chunks + 1, [], time.monotonic()
            yield frame


def as_line(frame: TrackedFrame) -> dict[str, Any]:
    """What ``--jsonl`` prints of a frame: its number, its time in seconds, and its objects; boxes xyxy in pixels."""
    found = frame.instances
    columns = frame.track_ids.tolist(), found.labels.tolist(), found.scores.tolist(), found.boxes.tolist()
    masks = [record["segmentation"] for record in found.to_coco()]
    objects = [
        {"track": track, "class": label, "score": round(score, 4), "box": box, "segmentation": mask}
        for track, label, score, box, mask in zip(*columns, masks, strict=True)
    ]
    return {"frame": frame.number, "seconds": round(frame.seconds, 3), "objects": objects}

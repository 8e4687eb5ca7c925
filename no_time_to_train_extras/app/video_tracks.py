"""The tracks in the app's videos: found in the background with the references of that moment, and kept in folders."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import RLock, Thread
from typing import Any

from no_time_to_train.api.image_proposals import ImageProposals
from no_time_to_train.api.reference_segmenter import ReadImage, ReferenceSegmenter
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.rle import Rle
from no_time_to_train.errors import UserError, one_line
from no_time_to_train.files import read_json
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.pipeline.replace_folder import is_finished
from no_time_to_train.pipeline.segment_images import depends_on
from no_time_to_train.visual.drawing import PALETTE
from no_time_to_train_extras.app.search import PAUSE
from no_time_to_train_extras.app.video_frames import Video
from no_time_to_train_extras.video.filmstrips import color_of
from no_time_to_train_extras.video.frames import Frames
from no_time_to_train_extras.video.track_frames import tracker_settings
from no_time_to_train_extras.video.track_run import TrackRun

#: What is written besides what ``track`` always writes.
ALSO = ("mots", "youtube-vis")


class Tracks:
    """What a finished run of ``track`` found.

    Attributes:
        rows: Each track by its number: its class and color, and the numbers of the first and the last frame with it.
        masks: The masks in each frame, with their tracks.
        memory: The memory that it was found with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.memory = folder, load_memory(folder / "references.memory")
        names = {one.id: one.name for one in self.memory.categories}
        rows: dict[int, dict[str, Any]] = {}
        self.masks: dict[int, list[tuple[Rle, int]]] = {}
        for record in read_json(folder / "results.json"):
            number, track = record["image_id"] - 1, record["track_id"]
            self.masks.setdefault(number, []).append((record["segmentation"], track))
            color = PALETTE.by_idx(color_of(track)).as_hex()
            start = {"id": track, "label": names[record["category_id"]], "color": color, "first": number}
            rows.setdefault(track, start)["last"] = number
        self.rows = dict(sorted(rows.items()))


class Stopped(Exception):
    """A person stopped the run."""


class SharingSegmenter(ReferenceSegmenter):
    """The same networks with the present memory, which stays as it is, until a person stops the run."""

    stopped = False

    def __init__(self, other: ReferenceSegmenter, networks: RLock) -> None:
        vars(self).update(vars(other))
        shared = other.segmenter
        self.segmenter, self.networks = Segmenter(shared.encoder, shared.proposer, settings=shared.settings), networks
        self.set_memory(other.memory)

    def _propose(self, images: Sequence[ReadImage]) -> Iterator[ImageProposals]:
        """Run the networks on images, while nothing else in this process does."""
        if self.stopped:
            raise Stopped
        with self.networks:
            return iter(list(super()._propose(images)))


class Tracking:
    """Finds the tracks in one video at a time.

    Args:
        networks: Held while the networks compute.
        folder: Where the results are kept, by the name and the content of the video, and by what they depend on. A run
            that was stopped or killed is resumed.

    Attributes:
        video: The video that is being tracked; None where none is.
        changes: Differs wherever anything differs that is known of tracks.
        problems: Why a run failed, by the stem of its video.
    """

    def __init__(self, networks: RLock, folder: Path) -> None:
        self.networks, self.folder = networks, folder
        self.video: Video | None = None
        self.problems: dict[str, str] = {}
        self.changes = 0
        self._lock = RLock()
        self._segmenter: SharingSegmenter | None = None
        self._run: TrackRun | None = None
        self._thread: Thread | None = None
        self._found: dict[str, Tracks | None] = {}

    @property
    def progress(self) -> tuple[int, int]:
        """The number of frames that are done, and that of all."""
        run = self._run
        return (0, 0) if run is None else (run.done, run.frames.count or 0)

    def start(self, video: Video, segmenter: ReferenceSegmenter, thresholds: Mapping[str, float], every: int) -> None:
        """Start to find the tracks in a video."""
        with self._lock:
            if self.video is not None:
                raise UserError(f"tracks are being found in {self.video.name}: wait, or stop that")
            if not video.content:
                raise UserError(video.problem or f"video {video.name} is still being read: wait a moment")
            if segmenter.memory is None:
                raise UserError("there is nothing to track yet: show an object first")
            self.video, self._run, self._segmenter = video, None, SharingSegmenter(segmenter, self.networks)
            self.problems.pop(video.stem, None)
            self._thread = Thread(target=self._track, args=(video, self._segmenter, thresholds, every), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the run; what it has found is kept until it goes on."""
        if self._segmenter is not None:
            self._segmenter.stopped = True

    def close(self) -> None:
        """Stop the run, and wait a little for its end."""
        self.stop()
        if self._thread is not None:
            self._thread.join(PAUSE)

    def tracks(self, video: Video) -> Tracks | None:
        """The tracks in a video that was read; None where none were looked for, or the video is another one by now."""
        if video.changed:
            return None
        if video.content and video.stem not in self._found:
            folders = filter(is_finished, self._place(video).parent.glob(f"{self._place(video).name}-*"))
            newest = max(folders, key=lambda one: one.stat().st_mtime, default=None)
            self._found[video.stem] = None
            try:
                self._found[video.stem] = None if newest is None else Tracks(newest)
            except (UserError, LookupError, TypeError) as error:
                self.problems[video.stem] = f"the tracks in {newest} cannot be read: {one_line(error)}"
        return self._found.get(video.stem)

    def _place(self, video: Video) -> Path:
        """What the folders of a video's tracks begin with."""
        return self.folder / video.stem / video.content.split()[1][:8]

    def _track(self, video: Video, segmenter: ReferenceSegmenter, lowest: Mapping[str, float], every: int) -> None:
        """Find the tracks in a video."""
        try:
            if video.changed:
                raise UserError(video.changed)
            settings = tracker_settings()
            known = json.dumps([depends_on(segmenter), dict(lowest), every, asdict(settings)])
            place = self._place(video)
            folder = place.with_name(f"{place.name}-{hashlib.sha256(known.encode()).hexdigest()[:8]}")
            if not is_finished(folder):
                frames = Frames(str(video.path), every)
                self._run = TrackRun(segmenter, frames, lowest, formats=ALSO, settings=settings)
                self._run.write(folder)
            self._found[video.stem] = Tracks(folder)
            for other in set(folder.parent.glob(f"{place.name}-*")) - {folder}:
                shutil.rmtree(other, ignore_errors=True)
        except Stopped:
            pass
        except Exception as error:  # of any type: the page says it
            self.problems[video.stem] = one_line(error) or type(error).__name__
        finally:
            self.video = None
            self.changes += 1

"""From frames to tracked frames: the method finds instances in each, and a tracker links them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import isfinite
from pathlib import Path
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.api.image_proposals import ImageProposals
from no_time_to_train.data.coco_results import from_coco_records
from no_time_to_train.data.images import ImageInput, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.prompts import check_rows
from no_time_to_train.errors import UserError
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.at_once import batches
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.devices import computing_in
from no_time_to_train.overlap import follow
from no_time_to_train.ranges import Positive, check_number
from no_time_to_train_extras.video.frames import Frame, Frames
from no_time_to_train_extras.video.tracker import Seconds, Track, Tracker, TrackerSettings

if TYPE_CHECKING:
    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter

#: The share of its class's threshold that the score of an instance needs to continue a track.
CONTINUES = 0.2

#: How many times in a row a mask may be carried on where objects are looked for and none is found in its place.
KEY_FRAMES = 2

#: A carried mask with a lower predicted IoU is not shown.
LEAST_IOU = 0.4


#: A path, the number of a camera, the address of a stream, or pairs of seconds and an image.
Video = str | Path | int | Iterable[tuple[float, ImageInput]]


@dataclass(frozen=True)
class TrackedFrame:
    """A frame with its objects.

    Attributes:
        number: Its number in the video, from 0.
        seconds: When it was taken, from the beginning of the video.
        instances: The instances that belong to tracks, each with the class of its track so far.
        track_ids: int64 [n], 1 or more: the tracks of the instances.
    """

    number: int
    seconds: float
    instances: Instances
    track_ids: NDArray[np.int64]

    @cached_property
    def record(self) -> dict[str, Any]:
        """The frame without its pixels, as JSON values; see :meth:`from_record`."""
        records = self.instances.to_coco(self.number + 1)
        for record, track in zip(records, self.track_ids.tolist(), strict=True):
            record["track_id"] = track
        return {"number": self.number, "seconds": self.seconds, "results": records}

    @classmethod
    def from_record(
        cls, record: dict[str, Any], image: NDArray[np.uint8], categories: list[Category]
    ) -> "TrackedFrame":
        """The frame of a :attr:`record`, from its pixels."""
        results = record["results"]
        found = from_coco_records(results, [category.id for category in categories], *image.shape[:2])
        tracks = np.array([one["track_id"] for one in results], np.int64)
        return cls(record["number"], record["seconds"], Instances(image, categories, found), tracks)


def tracker_settings(returns: float = 10) -> TrackerSettings:
    """The tracker's settings. It gets scores relative to the thresholds, because these may differ between classes.

    Args:
        returns: Seconds in which an object that was hidden or has left gets its identity back.
    """
    return TrackerSettings(birth_score=1.0, return_seconds=max(returns, TrackerSettings.lost_seconds))


class Carrier:
    """Carries the masks of a tracker's tracks from frame to frame by the memory of SAM 2.

    What it remembers begins again with each frame in which objects are looked for, so that a run can resume there.

    Attributes:
        tracks: Those that are carried.
    """

    def __init__(self, segmenter: "ReferenceSegmenter", tracker: Tracker) -> None:
        from no_time_to_train_extras.video.propagation import Propagator

        assert segmenter.segmenter.proposer is not None
        self.segmenter, self.tracker = segmenter, tracker
        self.propagator, self.size = Propagator(segmenter.segmenter), segmenter.segmenter.proposer.size
        self.tracks: list[Track] = []

    def start(self, frame: Frame, square: Tensor) -> None:
        """Carry the tracks that were seen in a frame, and no others; its ``square`` is that of :meth:`see`."""
        seen = [track for track in self.tracker.tracks if track.seconds == frame.seconds]
        self.tracks = [track for track in seen if track.carried <= KEY_FRAMES]
        with computing_in(self.segmenter.precision, self.segmenter.device):
            self.propagator.start(square, masks_of(self.tracks, frame), np.array([one.id for one in self.tracks]))

    def see(self, frame: Frame) -> Tensor:
        """A frame as SAM 2 takes it. It encodes the same tensor once."""
        return target_tensor(frame.image, self.size).to(self.segmenter.device)

    def step(self, frame: Frame, square: Tensor) -> tuple[list[Track], Detections]:
        """Find the carried tracks in the next frame: those that are seen, and their masks with the predicted IoUs."""
        with computing_in(self.segmenter.precision, self.segmenter.device):
            masks, scores = self.propagator.step(square)
        alive = np.array([track in self.tracker.tracks for track in self.tracks], bool)  # others have got their ids
        seen = np.flatnonzero(alive & (masks.areas > 0) & (scores.numpy() >= LEAST_IOU))
        tracks, masks = [self.tracks[index] for index in seen.tolist()], masks[seen]
        for index, track in enumerate(tracks):
            crop, *corner = masks.crop(index)
            track.add(frame.seconds, crop, np.array(corner, float), track.vector, track.label, 0.0)
        self.tracker.name(tracks, *frame.image.shape[:2])
        return tracks, Detections(masks, masks.boxes, scores[seen], torch.zeros(len(seen), dtype=torch.int64))

    def propose(self, frame: Frame, square: Tensor) -> ImageProposals:
        """``ReferenceSegmenter.propose``, which encodes the frame for SAM 2 once more only where it has to."""
        if self.segmenter.segmenter.settings.tiles > 1 or self.segmenter.sources != [None]:
            return self.segmenter.propose(frame.image)
        with computing_in(self.segmenter.precision, self.segmenter.device):
            proposals = self.segmenter.segmenter.describe(square, *frame.image.shape[:2])
        return ImageProposals(frame.image, None, proposals)

    def unclaimed(self, frame: Frame, carried: list[Track]) -> NDArray[np.bool_]:
        """Which of the tracks carried into a frame go on, although no instance that was found there continues them.

        These are the ones that have an id, were found a few searches ago at most, and are not behind what was found.
        """
        seen = [track for track in self.tracker.tracks if track.seconds == frame.seconds]
        missed, found = ([one for one in seen if bool(one.carried) == late] for late in (True, False))
        shared = Masks.join([masks_of(missed, frame), masks_of(found, frame)]).intersections()
        covered = shared[: len(missed), len(missed) :].sum(axis=1) / shared.diagonal()[: len(missed)]
        for track, share in zip(missed, covered, strict=True):
            if not track.id or share > self.tracker.settings.birth_overlap:
                track.carried = KEY_FRAMES + 1
        return np.array([track in missed and track.carried <= KEY_FRAMES for track in carried], bool)


def masks_of(tracks: Sequence[Track], frame: Frame) -> Masks:
    """The last masks of tracks, of which each was seen in a frame."""
    crops = ((track.mask, *track.corner.astype(int).tolist()) for track in tracks)
    return Masks.from_crops(crops, *frame.image.shape[:2])


def track_frames(
    segmenter: "ReferenceSegmenter",
    frames: Iterable[Frame],
    thresholds: Mapping[str, float],
    tracker: Tracker,
    propagate: int = 1,
    last: Frame | None = None,
    at_once: int = 1,
    live: bool = False,
) -> Iterator[TrackedFrame]:
    """Find the objects of the memory's classes in the frames of a video, each with its identity.

    Args:
        thresholds: For each class the score that an instance needs to start a track. See ``CONTINUES``.
        tracker: Knows the frames before, and is told of these.
        propagate: Objects are looked for in one frame in this many, from the first one on. SAM 2's memory carries their
            masks through the others, where an instance's score is the predicted IoU; and through a few of those in
            which they are looked for, where none is found in their place.
        last: The frame before, in which objects were looked for; None at the beginning of a video.
        at_once: Frames that the encoders take at once, where no mask is carried on.
        live: Whether a frame is handed out before the next one is waited for.
    """
    assert segmenter.memory is not None
    categories = segmenter.memory.categories
    lowest = torch.tensor([thresholds[name] for name in segmenter.classes])
    continues = {name: CONTINUES * value for name, value in thresholds.items()}

    def link(found: tuple[Frame, ImageProposals]) -> TrackedFrame:
        return tracked(found[0], *linked(*found))

    def linked(frame: Frame, proposals: ImageProposals) -> tuple[Detections, NDArray[np.int64]]:
        detections = segmenter.classify(proposals, threshold=continues).detections
        relative = detections.scores / lowest[detections.classes].clamp(min=1e-6)
        return detections, tracker.update(frame.seconds, replace(detections, scores=relative))

    def tracked(frame: Frame, detections: Detections, ids: NDArray[np.int64]) -> TrackedFrame:
        order = detections.scores.argsort(descending=True, stable=True)
        order = order[torch.from_numpy(ids > 0)[order]]
        kept, ids = detections[order], ids[order.numpy()]
        labels = {track.id: track.label for track in tracker.tracks}
        kept.classes = torch.tensor([labels[track] for track in ids.tolist()], dtype=torch.int64)
        return TrackedFrame(frame.number, frame.seconds, Instances(frame.image, categories, kept), ids)

    if propagate == 1:
        proposed = _proposed(segmenter, frames, at_once)
        yield from map(link, proposed) if live else follow(proposed, link)
        return

    carrier = Carrier(segmenter, tracker)
    if last is not None:
        carrier.start(last, carrier.see(last))
    for index, frame in enumerate(frames, start=0 if last is None else 1):
        square = carrier.see(frame)
        tracks, carried = carrier.step(frame, square) if index else ([], None)
        ids = np.array([track.id for track in tracks], np.int64)
        if carried is not None and index % propagate:
            yield tracked(frame, carried, ids)
            continue
        for track in tracks:
            track.carried += 1
        found, of_found = linked(frame, carrier.propose(frame, square))
        goes_on = carrier.unclaimed(frame, tracks)
        carrier.start(frame, square)
        if carried is None:
            yield tracked(frame, found, of_found)
        else:
            yield tracked(frame, _joined(found, carried), np.append(of_found, ids * goes_on))


def _proposed(
    segmenter: "ReferenceSegmenter", frames: Iterable[Frame], at_once: int
) -> Iterator[tuple[Frame, ImageProposals]]:
    """Frames with their proposals."""
    for batch in batches(frames, at_once):
        yield from zip(batch, segmenter.propose_each((frame.image, "", None) for frame in batch), strict=True)


def _joined(one: Detections, other: Detections) -> Detections:
    """The instances of both, without their vectors."""
    pairs = (one.boxes, other.boxes), (one.scores, other.scores), (one.classes, other.classes)
    boxes, scores, classes = (torch.cat(pair) for pair in pairs)
    return Detections(Masks.join([one.masks, other.masks]), boxes, scores, classes)


def track(
    segmenter: "ReferenceSegmenter",
    video: Video,
    thresholds: Mapping[str, float],
    every: int,
    returns: float,
    propagate: int,
) -> Iterator[TrackedFrame]:
    """What ``ReferenceSegmenter.track`` returns."""
    check_number("every", every, Positive)
    check_number("propagate", propagate, Positive)
    check_number("returns", returns, Seconds)
    tracker = Tracker(tracker_settings(returns))
    if isinstance(video, str) and not video:
        raise UserError("video is empty: that of the current folder is .")
    if isinstance(video, str | Path | int):
        try:
            frames = Frames(str(video), every)
        except OSError as error:  # of a path that no system allows
            raise UserError(f"{short_repr(video)} cannot be read: {error.strerror}") from error
        at_once = 1 if frames.live else segmenter.segmenter.images.count
        try:
            yield from track_frames(
                segmenter, frames, thresholds, tracker, propagate, at_once=at_once, live=frames.live
            )
        finally:
            frames.close()
    else:
        numbered = islice(enumerate(check_rows("video", video, "seconds, image")), 0, None, every)
        own = (Frame(number, as_seconds(seconds), as_rgb(image)) for number, (seconds, image) in numbered)
        yield from track_frames(segmenter, own, thresholds, tracker, propagate)


def as_seconds(value: Any) -> float:
    """When a frame was taken, as a program states it."""
    with suppress(OverflowError, TypeError, ValueError):
        if isfinite(seconds := float(value)):
            return seconds
    raise UserError(f"video: the seconds of a frame must be a number, not {short_repr(value)}")

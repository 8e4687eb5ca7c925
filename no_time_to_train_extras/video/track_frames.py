"""From frames to tracked frames: the method finds instances in each, and a tracker links them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from no_time_to_train.api.image_proposals import ImageProposals
from no_time_to_train.data.coco_results import from_coco_records
from no_time_to_train.data.images import ImageInput, as_rgb
from no_time_to_train.data.instances import Instances
from no_time_to_train.method.detections import Detections
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


def tracker_settings(returns: float) -> TrackerSettings:
    """The tracker's settings. It gets scores relative to the thresholds, because these may differ between classes.

    Args:
        returns: Seconds in which an object that was hidden or has left gets its identity back.
    """
    return TrackerSettings(birth_score=1.0, return_seconds=max(returns, TrackerSettings.lost_seconds))


def track_frames(
    segmenter: "ReferenceSegmenter",
    frames: Iterable[Frame],
    thresholds: Mapping[str, float],
    tracker: Tracker,
    propagate: int = 1,
) -> Iterator[TrackedFrame]:
    """Find the objects of the memory's classes in the frames of a video, each with its identity.

    Args:
        thresholds: For each class the score that an instance needs to start a track. See ``CONTINUES``.
        tracker: Knows the frames before, and is told of these.
        propagate: Objects are looked for in one frame in this many, from the first one on. SAM 2's memory carries their
            masks through the others, where an instance's score is the predicted IoU.
    """
    assert segmenter.memory is not None
    categories = segmenter.memory.categories
    lowest = torch.tensor([thresholds[name] for name in segmenter.classes])
    continues = {name: CONTINUES * value for name, value in thresholds.items()}

    def propose(frame: Frame) -> tuple[Frame, ImageProposals]:
        return frame, segmenter.propose(frame.image)

    def link(found: tuple[Frame, ImageProposals]) -> TrackedFrame:
        frame, proposals = found
        detections = segmenter.classify(proposals, threshold=continues).detections
        relative = detections.scores / lowest[detections.classes].clamp(min=1e-6)
        return tracked(frame, detections, tracker.update(frame.seconds, replace(detections, scores=relative)))

    def tracked(frame: Frame, detections: Detections, ids: NDArray[np.int64]) -> TrackedFrame:
        kept, ids = detections[torch.from_numpy(ids > 0)], ids[ids > 0]
        labels = {track.id: track.label for track in tracker.tracks}
        kept.classes = torch.tensor([labels[track] for track in ids.tolist()], dtype=torch.int64)
        return TrackedFrame(frame.number, frame.seconds, Instances(frame.image, categories, kept), ids)

    def carry(frame: Frame, masks: Masks, scores: Tensor, tracks: list[Track]) -> TrackedFrame:
        seen = np.flatnonzero(masks.areas)
        for index in seen.tolist():
            crop, *corner = masks.crop(index)
            track = tracks[index]
            track.add(frame.seconds, crop, np.array(corner, float), track.vector, track.label, 0.0)
        ids = np.array([tracks[index].id for index in seen], np.int64)
        kept = masks[seen]
        return tracked(
            frame, Detections(kept, kept.boxes, scores[seen], torch.zeros(len(seen), dtype=torch.int64)), ids
        )

    if propagate == 1:
        yield from follow(frames, propose, link)
        return

    from no_time_to_train_extras.video.propagation import Propagator

    assert segmenter.segmenter.proposer is not None
    propagator, size = Propagator(segmenter.segmenter), segmenter.segmenter.proposer.size
    tracks: list[Track] = []
    for index, frame in enumerate(frames):
        square = target_tensor(frame.image, size).to(segmenter.device)
        if index % propagate:
            with computing_in(segmenter.precision, segmenter.device):
                carried = propagator.step(square)
            yield carry(frame, *carried, tracks)
            continue
        found = link(propose(frame))
        tracks = [track for track in tracker.tracks if track.seconds == frame.seconds]
        crops = ((track.mask, *track.corner.astype(int).tolist()) for track in tracks)
        masks = Masks.from_crops(crops, *frame.image.shape[:2])
        with computing_in(segmenter.precision, segmenter.device):
            propagator.start(square, masks, np.array([track.id for track in tracks]))
        yield found


def track(
    segmenter: "ReferenceSegmenter", video: Video, thresholds: Mapping[str, float], every: int, returns: float
) -> Iterator[TrackedFrame]:
    """What ``ReferenceSegmenter.track`` returns."""
    check_number("every", every, Positive)
    check_number("returns", returns, Seconds)
    tracker = Tracker(tracker_settings(returns))
    if isinstance(video, str | Path | int):
        frames = Frames(str(video), every)
        try:
            yield from track_frames(segmenter, frames, thresholds, tracker)
        finally:
            frames.close()
    else:
        numbered = islice(enumerate(video), 0, None, every)
        own = (Frame(number, seconds, as_rgb(image)) for number, (seconds, image) in numbered)
        yield from track_frames(segmenter, own, thresholds, tracker)

"""Linking the instances of a video's frames to tracks: one identity per object, online, from the past alone.

An instance continues a track that was seen a moment ago: by the overlap of its mask with the track's last mask, moved
at the track's velocity, and by the cosine of their vectors. What continues none starts a new track. Once that was seen
often enough, its mean vector is compared with those of the tracks that were lost: an object that was hidden or has left
comes back under its own id, and only another one gets a new id.
"""

import math
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch.nn import functional as F

from no_time_to_train.data.rle import decode_crop, encode_crop
from no_time_to_train.errors import UserError
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.ranges import Fraction, Positive, Range, check_fields

Floats = NDArray[np.float64]
Seconds = Annotated[float, Range(0)]

#: What the newest vector counts at least in the mean of a track.
NEW = 0.1

#: A mask is at the border if it is at most this many pixels from it.
AT_BORDER = 3


@dataclass(frozen=True)
class TrackerSettings:
    """The numbers of a tracker.

    Attributes:
        least_score: Instances with a lower score belong to no track.
        birth_score: An instance with at least this score starts a track where it continues none.
        birth_overlap: It starts none where more than this share of its mask is in instances that continue a track:
            it is a part of these.
        confirm: A track gets its id in the frame in which it was seen for this many times.
        overlap_weight: The share of the masks' overlap in the similarity of an instance to a track; the vectors have
            the rest. 0 links by vectors alone.
        least_similarity: Instances less similar to a track do not continue it.
        same_vector: The cosine that counts as no similarity; 1 counts as full similarity.
        other_class: Taken off the similarity where the classes differ.
        lost_seconds: A track that was seen neither in the last frame nor within this time is lost: only a new one can
            take its id.
        return_similarity: A new track less similar to a lost one does not take its id.
        far: Taken off that similarity for a way as long as the image's diagonal, from where the lost track was seen
            to where the new one is; for half the way, a quarter of it.
        outwards: The same where the lost track touched a border and the new one moves towards this border: what comes
            back turns around. For half the way, half of it. Where objects pass and others follow, as on a belt, it
            keeps the next one from taking the id.
        outwards_speed: The least speed towards that border, in diagonals of the image per second.
        return_seconds: A track that was not seen for longer has ended.
    """

    least_score: Fraction = 0.1
    birth_score: Fraction = 0.4
    birth_overlap: Fraction = 0.3
    confirm: Positive = 3
    overlap_weight: Fraction = 0.8
    least_similarity: Fraction = 0.3
    same_vector: Annotated[float, Range(-1, 0.999)] = 0.2
    other_class: Fraction = 0.2
    lost_seconds: Seconds = 0.3
    return_similarity: Fraction = 0.2
    far: Annotated[float, Range(0)] = 1.25
    outwards: Annotated[float, Range(0)] = 2.0
    outwards_speed: Annotated[float, Range(0)] = 0.2
    return_seconds: Seconds = 10.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(eq=False)
class Track:
    """What a tracker remembers of an object.

    Attributes:
        id: 1 or more; 0 until the track has one.
        seconds: When it was last seen.
        frames: In how many frames it was seen.
        carried: How many frames in which objects were looked for have passed since one of them last had it.
        mask: The box of its last mask, bool [h, w].
        corner: The first row and column of that box, float64 [2] in pixels.
        velocity: Of the box's center, float64 [2] in pixels per second, downwards and to the right.
        vector: float32 [D] of length 1, the mean of its vectors, of which later ones count more.
        votes: The sum of its scores for each class.
    """

    id: int = 0
    seconds: float = -math.inf
    frames: int = 0
    carried: int = 0
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    corner: Floats = field(default_factory=lambda: np.zeros(2))
    velocity: Floats = field(default_factory=lambda: np.zeros(2))
    vector: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))
    votes: dict[int, float] = field(default_factory=dict)

    @property
    def label(self) -> int:
        """The class that most of its score is for."""
        return max(self.votes, key=self.votes.__getitem__)

    @property
    def center(self) -> Floats:
        """The middle of the last mask's box: row and column, float64 [2] in pixels."""
        return self.corner + np.array(self.mask.shape) / 2

    def touches(self, height: int, width: int) -> NDArray[np.bool_]:
        """Whether the last mask is at the image's upper, left, lower and right border: bool [4]."""
        end = self.corner + np.array(self.mask.shape)
        return np.concatenate([self.corner, np.array([height, width]) - end]) <= AT_BORDER

    def add(
        self,
        seconds: float,
        mask: NDArray[np.bool_],
        corner: Floats,
        vector: NDArray[np.float32],
        label: int,
        score: float,
    ) -> None:
        """Add an instance. One of the frame that it was last seen in replaces what it was there."""
        if self.frames and seconds > self.seconds:
            velocity = (corner + np.array(mask.shape) / 2 - self.center) / max(seconds - self.seconds, 1e-6)
            self.velocity = velocity if self.frames == 1 else (self.velocity + velocity) / 2
        self.frames += seconds > self.seconds
        share = np.float32(max(1 / self.frames, NEW))
        self.vector = self.vector * (1 - share) + vector * share
        self.vector /= np.linalg.norm(self.vector)
        self.votes[label] = self.votes.get(label, 0.0) + score
        self.seconds, self.mask, self.corner = seconds, mask, corner

    def take_over(self, lost: "Track") -> None:
        """Go on as a lost track, which is the same object."""
        self.id = lost.id
        share = np.float32(self.frames / (self.frames + lost.frames))
        self.vector = lost.vector * (1 - share) + self.vector * share
        self.vector /= np.linalg.norm(self.vector)
        self.frames += lost.frames
        for label, score in lost.votes.items():
            self.votes[label] = self.votes.get(label, 0.0) + score

    def predicted(self, seconds: float, height: int, width: int) -> tuple[NDArray[np.bool_], int, int]:
        """The part of the mask that is expected inside the image at a time, and its first row and column."""
        top, left = np.rint(self.corner + self.velocity * (seconds - self.seconds)).astype(int).tolist()
        inside = self.mask[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
        return inside, min(max(top, 0), height - 1), min(max(left, 0), width - 1)


class Tracker:
    """Links the instances of one video.

    A run that is killed can go on: :meth:`state` is small (a vector and an RLE per track that may come back), so it can
    be kept with every few frames; :meth:`restore` and the frames after it then give the same ids.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self.tracks: list[Track] = []
        self.last_id, self.seconds = 0, 0.0

    def update(self, seconds: float, detections: Detections) -> NDArray[np.int64]:
        """Link the instances of the next frame.

        Args:
            seconds: When the frame was taken; later than the frame before.
            detections: Its instances. Their vectors are needed.

        Returns:
            int64 [n], the id of each instance's track; 0 where it has none (yet). An id is never used again.
        """
        if self.tracks and seconds < self.seconds:
            raise UserError(f"a frame of {seconds} s comes after one of {self.seconds} s: sort them by their time")
        settings = self.settings
        kept = torch.nonzero(detections.scores >= settings.least_score)[:, 0]
        ids, detections = np.zeros(len(detections), np.int64), detections[kept]
        recent_since = min(self.seconds, seconds - settings.lost_seconds)
        since = recent_since, min(self.seconds, seconds - settings.return_seconds)
        self.tracks, self.seconds = [one for one in self.tracks if one.seconds >= since[one.id > 0]], seconds
        assert detections.vectors is not None
        vectors = np.asarray(F.normalize(detections.vectors, dim=1))
        scores, classes = np.asarray(detections.scores), np.asarray(detections.classes)
        recent = [one for one in self.tracks if one.seconds >= recent_since]
        overlaps, covered = _overlaps(seconds, recent, detections.masks)
        similarity = settings.overlap_weight * overlaps + (1 - settings.overlap_weight) * self._alike(recent, vectors)
        similarity -= settings.other_class * _differ(recent, classes)
        found = {column: recent[row] for row, column in _assign(similarity, settings.least_similarity)}
        for index in np.flatnonzero(scores >= settings.birth_score).tolist():
            if index not in found and covered[index, list(found)].sum() <= settings.birth_overlap:
                found[index] = Track()
                self.tracks.append(found[index])
        for index, track in found.items():
            crop, *corner = detections.masks.crop(index)
            track.add(seconds, crop, np.array(corner, float), vectors[index], int(classes[index]), float(scores[index]))
            track.carried = 0
        self.name(list(found.values()), *detections.masks.shape[1:])
        ids[np.asarray(kept)[list(found)]] = [track.id for track in found.values()]
        return ids

    def name(self, found: list[Track], height: int, width: int) -> None:
        """Give ids to those tracks of a frame that were seen often enough: that of a lost track, or a new one."""
        settings = self.settings
        new = [one for one in found if not one.id and one.frames >= settings.confirm]
        lost = [one for one in self.tracks if one.id and all(one is not other for other in found)]
        if new and lost:
            similarity = self._alike(lost, np.array([one.vector for one in new]))
            similarity -= settings.other_class * _differ(lost, np.array([one.label for one in new]))
            similarity -= self._ways(lost, new, height, width)
            for row, column in _assign(similarity, settings.return_similarity):
                new[column].take_over(lost[row])
                self.tracks.remove(lost[row])
        for track in new:
            if not track.id:
                self.last_id += 1
                track.id = self.last_id

    def _ways(self, lost: list[Track], new: list[Track], height: int, width: int) -> Floats:
        """What the ways from where lost tracks were seen to where new ones are take off the similarity: [lost, new]."""
        diagonal = float(np.hypot(height, width))
        ways = cdist([one.center for one in lost], [one.center for one in new]) / diagonal
        left = np.array([one.touches(height, width) for one in lost])
        speeds = np.array([np.concatenate([-one.velocity, one.velocity]) for one in new]) / diagonal
        outwards = (left[:, None] & (speeds > self.settings.outwards_speed)).any(axis=2)
        return np.where(outwards, self.settings.outwards * ways, self.settings.far * ways**2)

    def _alike(self, tracks: list[Track], vectors: NDArray[np.float32]) -> Floats:
        """How alike the vectors of tracks and instances are, in [0, 1]: [tracks, n]."""
        known = np.array([one.vector for one in tracks]).reshape(-1, vectors.shape[1])
        same = self.settings.same_vector
        return np.clip((known @ vectors.T - same) / (1 - same), 0, 1).astype(np.float64)

    def state(self) -> dict[str, Any]:
        """All that the tracker remembers, as JSON values."""
        return {"last_id": self.last_id, "seconds": self.seconds, "tracks": [_to_json(track) for track in self.tracks]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.last_id, self.seconds = state["last_id"], state["seconds"]
        self.tracks = [_from_json(track) for track in state["tracks"]]


def _assign(similarity: Floats, least: float) -> list[tuple[int, int]]:
    """The pairs of rows and columns with the largest sum, without those below ``least``."""
    rows, columns = linear_sum_assignment(-similarity)
    good = similarity[rows, columns] >= least
    return list(zip(rows[good].tolist(), columns[good].tolist(), strict=True))


def _differ(tracks: list[Track], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the classes of tracks and instances differ: [tracks, n]."""
    return np.array([one.label for one in tracks], int)[:, None] != classes


def _overlaps(seconds: float, tracks: list[Track], masks: Masks) -> tuple[Floats, Floats]:
    """The IoU of each track's moved mask with each mask, [tracks, n]; the share of each mask in each other, [n, n]."""
    _, height, width = masks.shape
    moved = Masks.from_crops((one.predicted(seconds, height, width) for one in tracks), height, width)
    shared = Masks.join([moved, masks]).intersections()
    areas, count = np.maximum(shared.diagonal(), 1), len(tracks)
    iou = shared[:count, count:] / (areas[:count, None] + areas[count:] - shared[:count, count:])
    return iou, shared[count:, count:] / areas[count:, None]


def _to_json(track: Track) -> dict[str, Any]:
    mask = encode_crop(track.mask, 0, 0, *track.mask.shape)
    vector = b64encode(track.vector.astype("<f4").tobytes()).decode()
    votes = list(track.votes.items())
    place = {"corner": track.corner.tolist(), "velocity": track.velocity.tolist()}
    numbers = {name: getattr(track, name) for name in ("id", "seconds", "frames", "carried")}
    return {**numbers, **place, "mask": mask, "vector": vector, "votes": votes}


def _from_json(value: dict[str, Any]) -> Track:
    mask = decode_crop(value["mask"])[0]
    arrays = {name: np.array(value[name]) for name in ("corner", "velocity")}
    vector = np.frombuffer(b64decode(value["vector"]), "<f4")
    return Track(**{**value, **arrays, "mask": mask, "vector": vector, "votes": dict(value["votes"])})

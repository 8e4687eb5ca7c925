"""Linking the instances of a video's frames to tracks: one identity per object, online, from the past alone.

An instance continues the track to which it is most alike: by the overlap of its mask with the track's last mask, moved
at the track's velocity, and by the cosine of their vectors. The longer a track was not seen, the less its overlap
counts and the more the vectors do, so that an object that was hidden or has left comes back under its own id.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from no_time_to_train.data.rle import decode_crop, encode_crop
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.ranges import Fraction, Positive, Range, check_fields

Floats = NDArray[np.float64]

#: A similarity below that of any pair that may be matched.
NEVER = -10.0


@dataclass(frozen=True)
class TrackerSettings:
    """The numbers of a tracker.

    Attributes:
        birth_score: An instance with at least this score starts a track where it continues none.
        confirm: A track gets its id in the frame in which it is seen for this many frames in a row.
        overlap_weight: The share of the mask's overlap in the similarity of an instance to a track that was seen
            right now; the vectors have the rest. 0 links by vectors alone.
        fade: Seconds after which the share of the overlap is half of that.
        least_similarity: Instances less similar to a track do not continue it.
        same_vector: The cosine that counts as no similarity; 1 counts as full similarity.
        other_class: Taken off the similarity where the classes differ.
        return_seconds: A track that was not seen for longer is ended.
    """

    birth_score: Fraction = 0.5
    confirm: Positive = 2
    overlap_weight: Fraction = 0.7
    fade: Annotated[float, Range(0.001)] = 0.5
    least_similarity: Fraction = 0.3
    same_vector: Annotated[float, Range(-1, 0.999)] = 0.5
    other_class: Fraction = 0.3
    return_seconds: Annotated[float, Range(0)] = 10.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class Track:
    """What a tracker remembers of an object.

    Attributes:
        id: 1 or more; 0 until the track is confirmed.
        seconds: When it was last seen.
        frames: In how many frames it was seen.
        mask: The box of its last mask, bool [h, w].
        corner: The first row and column of that box, float64 [2] in pixels.
        velocity: Of the corner, float64 [2] in pixels per second.
        vector: float32 [D] of length 1, the mean of its vectors.
        votes: The sum of its scores for each class.
    """

    id: int
    seconds: float
    frames: int
    mask: NDArray[np.bool_]
    corner: Floats
    velocity: Floats
    vector: NDArray[np.float32]
    votes: dict[int, float]

    def predicted(self, seconds: float, height: int, width: int) -> tuple[NDArray[np.bool_], int, int]:
        """The part of the mask that is expected inside the image at a time, with its first row and column."""
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
        self.last_id = 0

    def update(self, seconds: float, detections: Detections) -> NDArray[np.int64]:
        """Link the instances of the next frame.

        Args:
            seconds: When the frame was taken; later than the frame before.
            detections: Its instances. Their vectors are needed.

        Returns:
            int64 [n], the id of each instance's track; 0 where it has none (yet). An id is never used again.
        """
        settings = self.settings
        self.tracks = [one for one in self.tracks if seconds - one.seconds <= settings.return_seconds]
        assert detections.vectors is not None
        vectors = np.asarray(detections.vectors, np.float32)
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        similarity = self._similarity(seconds, detections, vectors)
        continued: dict[int, Track] = {}
        for row, column in zip(*linear_sum_assignment(-similarity), strict=True):
            if similarity[row, column] >= settings.least_similarity:
                continued[int(column)] = self.tracks[row]
        ids = np.zeros(len(detections), np.int64)
        for index in range(len(detections)):
            track = continued.get(index)
            score, label = float(detections.scores[index]), int(detections.classes[index])
            mask, *corner = detections.masks.crop(index)
            place = np.array(corner, float)
            if track is None:
                if score < settings.birth_score or not mask.size:
                    continue
                track = Track(0, seconds, 0, mask, place, np.zeros(2), vectors[index], {})
                self.tracks.append(track)
            else:
                middle = place + np.array(mask.shape) / 2 - track.corner - np.array(track.mask.shape) / 2
                velocity = middle / max(seconds - track.seconds, 1e-6)
                track.velocity = velocity if track.frames == 1 else (track.velocity + velocity) / 2
                mean = 0.9 * track.vector + 0.1 * vectors[index]
                track.vector = mean / np.linalg.norm(mean)
                track.seconds, track.mask, track.corner = seconds, mask, place
            track.votes[label] = track.votes.get(label, 0.0) + score
            track.frames += 1
            if not track.id and track.frames >= settings.confirm:
                self.last_id += 1
                track.id = self.last_id
            ids[index] = track.id
        self.tracks = [one for one in self.tracks if one.id or one.seconds == seconds]
        return ids

    def _similarity(self, seconds: float, detections: Detections, vectors: NDArray[np.float32]) -> Floats:
        """How well each instance continues each track: float64 [tracks, n]."""
        if not self.tracks or not len(detections):
            return np.zeros((len(self.tracks), len(detections)))
        settings, (_, height, width) = self.settings, detections.masks.shape
        moved = Masks.from_crops((one.predicted(seconds, height, width) for one in self.tracks), height, width)
        shared = Masks.join([moved, detections.masks]).intersections()
        areas, count = shared.diagonal(), len(self.tracks)
        shared = shared[:count, count:]
        overlap = shared / np.maximum(areas[:count, None] + areas[count:] - shared, 1)
        cosine = np.stack([one.vector for one in self.tracks]) @ vectors.T
        alike = np.clip((cosine - settings.same_vector) / (1 - settings.same_vector), 0, 1)
        gaps = np.array([seconds - one.seconds for one in self.tracks])[:, None]
        weight = settings.overlap_weight * 0.5 ** (gaps / settings.fade)
        classes = np.array([max(one.votes, key=one.votes.__getitem__) for one in self.tracks])
        differs = classes[:, None] != np.asarray(detections.classes)
        return weight * overlap + (1 - weight) * alike - settings.other_class * differs

    def state(self) -> dict[str, Any]:
        """All that the tracker remembers, as JSON values."""
        return {"last_id": self.last_id, "tracks": [_to_json(track) for track in self.tracks]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.last_id = state["last_id"]
        self.tracks = [_from_json(track) for track in state["tracks"]]


def _to_json(track: Track) -> dict[str, Any]:
    mask = encode_crop(track.mask, 0, 0, *track.mask.shape)
    vector = b64encode(track.vector.astype("<f4").tobytes()).decode()
    votes = list(track.votes.items())
    place = {"corner": track.corner.tolist(), "velocity": track.velocity.tolist()}
    numbers = {name: getattr(track, name) for name in ("id", "seconds", "frames")}
    return {**numbers, **place, "mask": mask, "vector": vector, "votes": votes}


def _from_json(value: dict[str, Any]) -> Track:
    mask = decode_crop(value["mask"])[0]
    arrays = {name: np.array(value[name]) for name in ("corner", "velocity")}
    vector = np.frombuffer(b64decode(value["vector"]), "<f4")
    return Track(**{**value, **arrays, "mask": mask, "vector": vector, "votes": dict(value["votes"])})

"""Linking by overlap, by vectors and by both, on drawn clips.

``python -m timing.tracking`` draws clips (``moving_scenes.py``), finds their objects with the nano networks and a
memory of all eight classes (5 references each, from scenes of the demo), links them, and prints a table: HOTA, MOTA and
IDF1 of the masks by TrackEval (``pip install trackeval``), the error of the number of different objects, and the share
of the time that linking takes. The tracker's numbers were chosen on the seeds 777 and 1000 to 1009. Measure on others.
"""

import argparse
import contextlib
import io
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from no_time_to_train.demo.run_demo import POINTS_PER_SIDE
from no_time_to_train.demo.scenes import NOVEL_CLASSES
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.settings import Settings, of_mode
from no_time_to_train_extras.video.moving_scenes import RATE, draw_clip
from no_time_to_train_extras.video.tracker import Tracker, TrackerSettings
from timing.drawn_scenes import segmenter_of
from timing.report import table_row

#: Instances with a lower score are left out.
LEAST_SCORE = 0.1

#: The ways to link.
VARIANTS = {
    "overlap alone": TrackerSettings(overlap_weight=1, return_similarity=1, lost_seconds=1.0),
    "vectors alone": TrackerSettings(overlap_weight=0),
    "both": TrackerSettings(),
}

#: What is kept of a clip: the instances of each frame by mode, and the seconds that finding them took.
Found = tuple[dict[str, list[Detections]], float]


def find(folder: Path, seed: int, clips: int, modes: Sequence[str]) -> None:
    """Find the objects in the clips of a seed, and keep them in ``folder/SEED/CLIP.pt`` where they are not there yet."""
    folder = folder / str(seed)
    wanted = {index: folder / f"{index}.pt" for index in range(clips) if not (folder / f"{index}.pt").exists()}
    if not wanted:
        return
    settings = Settings(points_per_side=POINTS_PER_SIDE, prompts="guided")
    segmenter = segmenter_of(folder / "references", 1, seed, 5, settings)
    for index, path in wanted.items():
        found: dict[str, list[Detections]] = {mode: [] for mode in modes}
        start = time.perf_counter()
        for frame in draw_clip(np.random.default_rng([seed, index]), NOVEL_CLASSES).frames:
            proposals = segmenter.propose(frame).proposals
            for mode in modes:
                segmenter.segmenter.settings = replace(settings, **of_mode(mode))
                instances = segmenter.segmenter.match_and_merge(proposals)
                found[mode].append(instances[instances.scores >= LEAST_SCORE])
        torch.save((found, time.perf_counter() - start), path)
        print(f"seed {seed}: clip {index + 1} of {clips}", flush=True)


class Truth(NamedTuple):
    """The objects of a clip, and how well its instances fit them.

    Attributes:
        labels: The class of each object.
        present: For each frame the objects that are there.
        overlaps: For each frame the IoU of these with each instance: [present, instances].
    """

    labels: list[int]
    present: list[np.ndarray]
    overlaps: list[np.ndarray]


def compare(seed: int, index: int, found: list[Detections]) -> Truth:
    """Compare the instances of a clip with its objects."""
    clip = draw_clip(np.random.default_rng([seed, index]), NOVEL_CLASSES)
    truth = Truth(clip.labels.tolist(), [], [])
    for masks, instances in zip(clip.masks, found, strict=True):
        present = np.flatnonzero(masks.any(axis=(1, 2)))
        shared = Masks.join([Masks.pack(masks[present]), instances.masks]).intersections()
        areas, count = shared.diagonal(), len(present)
        union = areas[:count, None] + areas[count:] - shared[:count, count:]
        truth.present.append(present)
        truth.overlaps.append(shared[:count, count:] / union)
    return truth


def link(found: list[Detections], settings: TrackerSettings) -> tuple[list[np.ndarray], float]:
    """The track of each instance of each frame of a clip, and the seconds that linking took."""
    tracker, start = Tracker(settings), time.perf_counter()
    return [tracker.update(number / RATE, each) for number, each in enumerate(found)], time.perf_counter() - start


def sequence(truth: Truth, found: list[Detections], tracks: list[np.ndarray]) -> tuple[dict[str, Any], int]:
    """A clip as TrackEval takes it, and the error of the number of different objects, the sum over the classes.

    A track has the class of most of its score. Instances match only objects of their track's class.
    """
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for ids, instances in zip(tracks, found, strict=True):
        for track, label, score in zip(
            ids.tolist(), instances.classes.tolist(), instances.scores.tolist(), strict=True
        ):
            votes[track][label] += score
    votes.pop(0, None)
    numbers = {track: number for number, track in enumerate(votes)}
    label_of = {track: max(counter, key=counter.__getitem__) for track, counter in votes.items()}
    linked = [np.flatnonzero(ids) for ids in tracks]
    similarity = []
    for present, overlaps, ids, rows in zip(truth.present, truth.overlaps, tracks, linked, strict=True):
        labels = np.array([label_of[track] for track in ids[rows].tolist()], int)
        similarity.append(overlaps[:, rows] * (np.array(truth.labels)[present][:, None] == labels))
    seen = sorted({int(number) for present in truth.present for number in present})
    row_of = {number: row for row, number in enumerate(seen)}
    objects = Counter(truth.labels[number] for number in seen)
    counted = Counter(label_of.values())
    data = {
        "gt_ids": [np.array([row_of[number] for number in present.tolist()], int) for present in truth.present],
        "tracker_ids": [
            np.array([numbers[track] for track in ids[rows].tolist()], int)
            for ids, rows in zip(tracks, linked, strict=True)
        ],
        "similarity_scores": similarity,
        "num_gt_ids": len(seen),
        "num_tracker_ids": len(numbers),
        "num_gt_dets": sum(map(len, truth.present)),
        "num_tracker_dets": sum(map(len, linked)),
        "num_timesteps": len(tracks),
    }
    return data, sum(abs(counted[label] - objects[label]) for label in objects | counted)


def evaluate(sequences: dict[str, dict[str, Any]]) -> dict[str, float]:
    """HOTA, MOTA and IDF1 of all clips together, in percent."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    figures = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for metric, name in ((HOTA(), "HOTA"), (CLEAR(), "MOTA"), (Identity(), "IDF1")):
            each = {clip: metric.eval_sequence(data) for clip, data in sequences.items()}
            figures[name] = 100 * float(np.mean(metric.combine_sequences(each)[name]))
    return figures

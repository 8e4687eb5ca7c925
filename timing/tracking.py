"""Linking by overlap, by vectors and by both, on drawn clips.

``python -m timing.tracking`` draws clips (``moving_scenes.py``), finds their objects with the nano networks and a
memory of all eight classes (5 references each, from scenes of the demo), links them, and prints a table: HOTA, MOTA and
IDF1 of the masks by TrackEval (``pip install trackeval``), the error of the number of different objects, and the share
of the time that linking takes. ``--propagate 5`` adds a row: objects are looked for in every fifth frame, and SAM 2
carries them through the others. The tracker's numbers were chosen on the seeds 777 and 1000 to 1009. Measure on others.
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
from no_time_to_train_extras.video.frames import Frame
from no_time_to_train_extras.video.moving_scenes import RATE, Clip, draw_clip
from no_time_to_train_extras.video.track_frames import track_frames, tracker_settings
from no_time_to_train_extras.video.tracker import Tracker, TrackerSettings
from timing.drawn_scenes import segmenter_of
from timing.report import table_row

#: The ways to link, each with the smallest similarity that was best for it.
VARIANTS = {
    "overlap alone": TrackerSettings(overlap_weight=1, least_similarity=0.05, lost_seconds=4, return_similarity=1),
    "vectors alone": TrackerSettings(overlap_weight=0, least_similarity=0.1),
    "both": TrackerSettings(),
    "both, none returns": TrackerSettings(return_seconds=TrackerSettings.lost_seconds),
}

#: What is kept of a clip: the instances of each frame by mode, and the seconds that finding them took.
Found = tuple[dict[str, list[Detections]], float]


def draw(seed: int, index: int, kind: str) -> Clip:
    """A clip of a seed."""
    return draw_clip(np.random.default_rng([seed, index]), NOVEL_CLASSES, belt=kind == "belt")


def clip_settings() -> Settings:
    """The method's numbers."""
    return Settings(points_per_side=POINTS_PER_SIDE, prompts="guided")


def find(folder: Path, kind: str, seed: int, clips: int, modes: Sequence[str]) -> None:
    """Find the objects in the clips of a seed that have no file ``folder/KIND/SEED/CLIP.pt`` yet, and write it."""
    folder = folder / kind / str(seed)
    wanted = {index: folder / f"{index}.pt" for index in range(clips) if not (folder / f"{index}.pt").exists()}
    if not wanted:
        return
    settings = clip_settings()
    segmenter = segmenter_of(folder / "references", 1, seed, 5, settings)
    for index, path in wanted.items():
        found: dict[str, list[Detections]] = {mode: [] for mode in modes}
        frames = draw(seed, index, kind).frames
        start = time.process_time()
        for frame in frames:
            proposals = segmenter.propose(frame).proposals
            for mode in modes:
                segmenter.segmenter.settings = replace(settings, **of_mode(mode))
                found[mode].append(segmenter.segmenter.match_and_merge(proposals))
        torch.save((found, time.process_time() - start), path)
        print(f"{kind}, seed {seed}: clip {index + 1} of {clips}", flush=True)


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


def compare(clip: Clip, found: list[Detections]) -> Truth:
    """Compare the instances of a clip with its objects."""
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
    tracker, start = Tracker(settings), time.process_time()
    return [tracker.update(number / RATE, each) for number, each in enumerate(found)], time.process_time() - start


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
    from trackeval.metrics import CLEAR, HOTA, Identity  # type: ignore[import-not-found]  # only this needs it

    figures = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for metric, name in ((HOTA(), "HOTA"), (CLEAR(), "MOTA"), (Identity(), "IDF1")):
            each = {clip: metric.eval_sequence(data) for clip, data in sequences.items()}
            figures[name] = 100 * float(np.mean(metric.combine_sequences(each)[name]))
    return figures


def carry(folder: Path, kind: str, seed: int, index: int, propagate: int) -> tuple[list[Detections], list[np.ndarray]]:
    """Track a clip with the networks, which look for objects in one frame in this many: its instances and tracks."""
    segmenter = segmenter_of(folder / kind / str(seed) / "references", 1, seed, 5, clip_settings())
    clip = enumerate(draw(seed, index, kind).frames)
    frames = (Frame(number, number / RATE, image) for number, image in clip)
    thresholds = dict.fromkeys(segmenter.classes, TrackerSettings.birth_score)
    found = list(track_frames(segmenter, frames, thresholds, Tracker(tracker_settings(10)), propagate))
    return [frame.instances.detections for frame in found], [frame.track_ids for frame in found]


def measure(
    folder: Path, kind: str, seeds: Sequence[int], clips: int, mode: str, propagate: int = 1
) -> list[list[str]]:
    """The rows of the table, of the clips of some seeds together."""
    carried = f"both, looked for in 1 of {propagate} frames"
    sequences: dict[str, dict[str, Any]] = {name: {} for name in [*VARIANTS, *[carried] * (propagate > 1)]}
    wrong, linking = Counter[str](), defaultdict[str, float](float)
    finding, naive = 0.0, 0
    for seed in seeds:
        for index in range(clips):
            by_mode, seconds = torch.load(folder / kind / str(seed) / f"{index}.pt", weights_only=False)
            found = by_mode[mode]
            truth, finding = compare(draw(seed, index, kind), found), finding + seconds
            naive += sum(int((each.scores >= TrackerSettings().birth_score).sum()) for each in found)
            for name, settings in VARIANTS.items():
                tracks, linked = link(found, settings)
                sequences[name][f"{seed}/{index}"], error = sequence(truth, found, tracks)
                wrong[name] += error
                linking[name] += linked
            if propagate > 1:
                found, tracks = carry(folder, kind, seed, index, propagate)
                truth = compare(draw(seed, index, kind), found)
                sequences[carried][f"{seed}/{index}"], error = sequence(truth, found, tracks)
                wrong[carried] += error
    rows = []
    for name, by_clip in sequences.items():
        objects, tracks = (sum(each[key] for each in by_clip.values()) for key in ("num_gt_ids", "num_tracker_ids"))
        scores = [f"{value:.1f}" for value in evaluate(by_clip).values()]
        share = "-" if name == carried else f"{100 * linking[name] / finding:.1f}%"
        rows.append([name, *scores, str(tracks), f"{100 * wrong[name] / objects:.0f}%", share])
    return [*rows, ["none: each instance counts", *"---", str(naive), f"{100 * (naive - objects) / objects:.0f}%", "-"]]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--clips", type=int, default=30, help="Clips per seed, of 60 frames each.")
    parser.add_argument("--kind", choices=["return", "belt"], default="return", help="Whether objects come back.")
    parser.add_argument("--propagate", type=int, default=1, help="Look for objects in one frame in this many, too.")
    parser.add_argument("--modes", nargs="+", default=["paper", "best"], help="The modes of the method.")
    parser.add_argument("--folder", type=Path, help="Keep what was found here, and find only what is not there.")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for seed in args.seeds:
            find(folder, args.kind, seed, args.clips, args.modes)
        for mode in args.modes:
            print(
                f"\n{args.kind}, mode {mode}\n\n| linked by | HOTA | MOTA | IDF1 | tracks | error of the count | time |"
            )
            print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
            for row in measure(folder, args.kind, args.seeds, args.clips, mode, args.propagate):
                print(table_row(row), flush=True)


if __name__ == "__main__":
    main()

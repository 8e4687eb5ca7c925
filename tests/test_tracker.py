"""Linking: an object keeps its id when it moves, crosses another, is hidden or leaves, and nothing else gets it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from no_time_to_train.demo.scenes import NOVEL_CLASSES
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train_extras.video.moving_scenes import LEAST_VISIBLE, Clip, draw_clip
from no_time_to_train_extras.video.track_frames import tracker_settings
from no_time_to_train_extras.video.tracker import Tracker, TrackerSettings

#: Height and width of the frames.
HEIGHT, WIDTH = 60, 200

#: Vectors of objects that look different, and one that looks nearly like the first.
RED, BLUE, NEARLY_RED = [1.0, 0, 0], [0, 1.0, 0], [0.95, 0, 0.3]

SETTINGS = TrackerSettings(
    birth_score=0.5, confirm=2, least_similarity=0.2, lost_seconds=0.3, return_similarity=0.3, return_seconds=5
)


def seen(*squares: tuple[int, list[float]], top: int = 10, side: int = 20, score: float = 0.9) -> Detections:
    """Square objects of one class, each by its left edge and its vector."""
    masks = np.zeros((len(squares), HEIGHT, WIDTH), bool)
    for mask, (left, _) in zip(masks, squares, strict=True):
        mask[top : top + side, left : left + side] = True
    return frame(masks, [vector for _, vector in squares], score)


def frame(masks: np.ndarray, vectors: Iterable[list[float]], score: float, labels: Iterable[int] = ()) -> Detections:
    packed, count = Masks.pack(masks), len(masks)
    classes = torch.tensor(list(labels) or [0] * count, dtype=torch.int64)
    vector = torch.tensor(list(vectors), dtype=torch.float32).reshape(count, len(RED) if not count else -1)
    return Detections(packed, packed.boxes, torch.full((count,), score), classes, vectors=vector)


def follow(tracker: Tracker, frames: Iterable[Detections], start: float = 0.0) -> list[list[int]]:
    return [tracker.update(start + number / 10, each).tolist() for number, each in enumerate(frames)]


def test_an_object_gets_its_id_once_it_was_seen_often_enough() -> None:
    assert follow(Tracker(SETTINGS), [seen((10, RED)), seen((12, RED)), seen((14, RED))]) == [[0], [1], [1]]


def test_an_object_is_found_where_it_moves_to() -> None:
    """It moves by more than its own width, and another one of the same look turns up where it was."""
    frames = [seen((left, RED)) for left in (0, 12, 30, 54, 84)]
    assert follow(Tracker(SETTINGS), [*frames, seen((84, RED), (114, RED))])[-1] == [0, 1]


def test_objects_that_look_alike_keep_their_ids_when_they_cross() -> None:
    frames = [seen((5 * step, RED), (170 - 5 * step, RED)) for step in range(35)]
    ids = follow(Tracker(SETTINGS), frames)
    assert ids[1] == ids[-1] == [1, 2]


def test_objects_that_touch_keep_their_ids_by_their_vectors() -> None:
    """Both jump to the middle between them, so that masks do not tell which is which."""
    apart, between = seen((40, RED), (60, BLUE)), seen((50, BLUE), (50, RED))
    both, overlap_alone = (
        follow(Tracker(settings), [apart, apart, between])[-1]
        for settings in (SETTINGS, TrackerSettings(confirm=2, overlap_weight=1))
    )
    assert both == [2, 1]
    assert overlap_alone == [1, 2]


def returned(tracker: Tracker, away: float, vector: list[float], left: int = 60, step: int = 0) -> int:
    """The id of what is there after an object left on the left for some seconds."""
    follow(tracker, [seen((4 - 2 * number, RED)) for number in range(3)])
    follow(tracker, [seen()], start=1.0)
    return follow(tracker, [seen((left + step * number, vector)) for number in range(3)], start=away)[-1][0]


def test_an_object_that_left_comes_back_under_its_id() -> None:
    assert returned(Tracker(SETTINGS), 3.0, NEARLY_RED) == 1


def test_another_object_gets_another_id() -> None:
    assert returned(Tracker(SETTINGS), 3.0, BLUE) == 2


def test_what_follows_on_a_belt_does_not_take_the_id_of_what_went() -> None:
    assert returned(Tracker(SETTINGS), 3.0, NEARLY_RED, left=170) == 2


def test_what_left_over_a_border_and_comes_back_turns_around() -> None:
    assert [returned(Tracker(SETTINGS), 3.0, NEARLY_RED, left=90, step=step) for step in (8, -8)] == [1, 2]


def test_an_id_is_not_taken_after_the_time_to_return_nor_used_again() -> None:
    assert returned(Tracker(SETTINGS), 6.0, RED) == 2


def test_nothing_comes_back_where_returns_is_0() -> None:
    for seconds, number in ((10, 1), (0, 2)):
        settings = replace(tracker_settings(seconds), birth_score=0.4)
        assert returned(Tracker(settings), 3.0, NEARLY_RED) == number


def test_a_low_score_continues_a_track_but_starts_none() -> None:
    tracker = Tracker(SETTINGS)
    frames = [seen((10, RED), score=0.3), seen((10, RED)), seen((10, RED)), seen((10, RED), score=0.3)]
    assert follow(tracker, frames) == [[0], [0], [1], [1]]


def test_a_part_of_an_object_starts_no_track() -> None:
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    masks[0, 10:50, 20:80] = masks[1, 20:40, 30:50] = True
    assert follow(Tracker(SETTINGS), [frame(masks, [RED, RED], 0.9)] * 3)[-1] == [1, 0]


def test_an_object_of_another_class_does_not_continue_a_track() -> None:
    masks = np.zeros((1, HEIGHT, WIDTH), bool)
    masks[0, 10:50, 20:80] = True
    tracker = Tracker(TrackerSettings(confirm=2, other_class=1))
    ids = follow(tracker, [frame(masks, [RED], 0.9, [label]) for label in (0, 0, 1, 1)])
    assert ids == [[0], [1], [0], [2]]


def test_sparse_frames_are_linked_by_overlap_too() -> None:
    tracker = Tracker(TrackerSettings(confirm=2, overlap_weight=1, lost_seconds=0.3))
    assert [tracker.update(2.0 * step, seen((10 + step, RED))).tolist() for step in range(3)] == [[0], [1], [1]]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(np.random.default_rng([777, 0]), NOVEL_CLASSES, frames=40, side=160)


def instances(clip: Clip) -> Iterator[Detections]:
    """What a perfect detector with noisy vectors says."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(len(clip.labels), 8))
    for masks in clip.masks:
        there = np.flatnonzero(masks.any(axis=(1, 2)))
        vectors = looks[there] + 0.2 * rng.normal(size=(len(there), 8))
        yield frame(masks[there], vectors.tolist(), 0.9, clip.labels[there].tolist())


def test_a_restored_tracker_goes_on_with_the_same_ids(clip: Clip) -> None:
    whole = follow(Tracker(), instances(clip))
    tracker, ids = Tracker(), []
    for number, each in enumerate(instances(clip)):
        state = json.loads(json.dumps(tracker.state()))
        tracker = Tracker()
        tracker.restore(state)
        ids.append(tracker.update(number / 10, each).tolist())
    assert ids == whole


def test_objects_that_leave_and_come_back_are_counted_once_with_vectors_and_again_without(clip: Clip) -> None:
    counts = []
    for settings in (TrackerSettings(), TrackerSettings(overlap_weight=1, return_similarity=1)):
        ids = follow(Tracker(settings), instances(clip))
        counts.append(len({one for each in ids for one in each if one}))
    there = clip.masks.any(axis=(2, 3))
    assert counts[0] == there.any(axis=0).sum() < counts[1]


def test_a_clip_shows_objects_that_move_leave_and_come_back(clip: Clip) -> None:
    there = clip.masks.any(axis=(2, 3)).T.astype(int)
    assert any((np.diff(each) == 1).any() and (np.diff(each) == -1).any() for each in there)
    assert clip.masks.sum(axis=1).max() == 1  # disjoint
    areas = clip.masks.sum(axis=(2, 3))
    assert areas[areas > 0].min() > 0.5 * LEAST_VISIBLE * areas.max(axis=0).min() * 0.7**2
    again = draw_clip(np.random.default_rng([777, 0]), NOVEL_CLASSES, frames=40, side=160)
    np.testing.assert_array_equal(again.frames, clip.frames)

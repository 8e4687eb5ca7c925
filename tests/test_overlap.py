"""Work of one image while the networks work on the next: order, errors, and that nothing of it changes results."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from no_time_to_train import ReferenceSegmenter, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.method.fast.masks import pack_bits
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.overlap import Worker, read_ahead
from no_time_to_train.pipeline.find_instances_stage import FindInstancesStage
from tests.conftest import Arguments, Capture, Checkpoints, Patch, Photo, nano_segmenter, results


def fail() -> None:
    raise UserError("no")


def test_jobs_run_one_at_a_time_in_another_thread_and_their_errors_come_with_the_next_call() -> None:
    with Worker[Any]() as worker:
        assert worker.finish() is None
        worker.start(threading.get_ident)
        assert worker.finish() != threading.get_ident()
        assert worker.finish() is None
        worker.start(fail)
        with pytest.raises(UserError, match="no"):
            worker.start(lambda: 1)
        worker.start(lambda: 2)
        assert worker.finish() == 2


def test_reading_ahead_changes_neither_the_items_nor_the_place_of_an_error() -> None:
    threads = set()

    def items() -> Iterator[int]:
        for number in range(3):
            threads.add(threading.get_ident())
            yield number
        fail()

    read = read_ahead(items())
    assert [next(read) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="no"):
        next(read)
    assert threading.get_ident() not in threads


@pytest.fixture
def segmenter(nano_checkpoints: Checkpoints, photo: Photo) -> ReferenceSegmenter:
    found = ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", settings=Settings(points_per_side=6))
    found.add_reference("thing", photo.path, mask=photo.mask_path)
    return found


def test_segmenting_is_ranking_what_was_proposed_and_another_memory_needs_no_network(
    segmenter: ReferenceSegmenter, photo: Photo, monkeypatch: Patch
) -> None:
    expected = segmenter.segment(photo.path, threshold=0.2)
    proposals = segmenter.propose(photo.path)
    assert (len(proposals) > 0, proposals.path) == (True, photo.path)
    segmenter.add_reference("other", photo.path, mask=~photo.mask)
    with_both = segmenter.segment(photo.path, threshold=0.0)
    monkeypatch.setattr(Segmenter, "describe_each", lambda *_: fail())
    assert segmenter.classify(proposals, 0.0).to_coco() == with_both.to_coco()
    segmenter.remove("other")
    ranked = segmenter.classify(proposals, 0.2)
    assert ranked.to_coco() == expected.to_coco()
    assert ranked.detections.prompts == 36
    segmenter.memory = None
    with pytest.raises(UserError, match="the memory is empty"):
        segmenter.classify(proposals)


def test_guided_proposals_need_a_memory(photo: Photo) -> None:
    with pytest.raises(UserError, match="the memory is empty"):
        nano_segmenter(6, prompts="guided").propose(photo.path)


@pytest.mark.parametrize("at_once", [1, 4])
def test_images_before_an_unreadable_one_are_given(segmenter: ReferenceSegmenter, photo: Photo, at_once: int) -> None:
    segmenter.segmenter.images.count = at_once
    found = segmenter.segment_many([photo.path, "gone.png"], threshold=0.0, progress=False)
    assert next(found).to_coco() == segmenter.segment(photo.path, threshold=0.0).to_coco()
    with pytest.raises(UserError, match=r"image not found: gone\.png"):
        next(found)


def test_the_memory_may_change_between_two_images(segmenter: ReferenceSegmenter, photo: Photo) -> None:
    found = segmenter.segment_many([photo.path] * 2, threshold=0.0, progress=False)
    assert set(next(found).labels) == {"thing"}
    segmenter.add_reference("other", photo.path, mask=~photo.mask)
    assert next(found).to_coco() == segmenter.segment(photo.path, threshold=0.0).to_coco()


def test_an_error_in_the_thread_of_a_stage_ends_the_run_and_the_other_images_may_be_seen_two_at_once(
    arguments: Arguments, tmp_path: Path, capsys: Capture
) -> None:
    run = arguments(tmp_path)
    main(run)
    expected = results(tmp_path)
    follow, encode, seen = FindInstancesStage.follow, MaskProposer._encode, []

    def failing(self: FindInstancesStage, item: Any, *arguments: Any) -> Any:
        seen.append(item.image_id)
        if len(seen) == 3:
            raise UserError("the third image is too much")
        return follow(self, item, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FindInstancesStage, "follow", failing)
        with pytest.raises(SystemExit) as error:
            main(run)
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert "the third image is too much" in printed.err
    assert "2 of " in printed.out
    assert "images are done; run the same command again to resume" in printed.out
    seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskProposer, "_encode", lambda self, images: (seen.append(len(images)), encode(self, images))[1])
        main([*run, "--model.init_args.model_cfg.sam2_infer_cfgs.images_per_batch", "2"])
    assert seen == [2, 1]
    for found, one_by_one in zip(json.loads(results(tmp_path)), json.loads(expected), strict=True):
        assert found.pop("score") == pytest.approx(one_by_one.pop("score"), abs=1e-5)
        assert found == one_by_one


@pytest.mark.parametrize("width", [1, 7, 8, 9, 33])
def test_bits_packed_on_a_device_are_those_of_numpy(width: int) -> None:
    masks = torch.rand(3, 5, width, generator=torch.Generator().manual_seed(width)) > 0.5
    np.testing.assert_array_equal(pack_bits(masks), np.packbits(masks.numpy(), axis=2))

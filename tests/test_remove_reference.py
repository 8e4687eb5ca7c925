"""``remove_reference``: the memory without one reference."""

import numpy as np
import pytest

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.errors import UserError

SCENE = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (90, 120))


@pytest.fixture(scope="module")
def segmenter() -> ReferenceSegmenter:
    return ReferenceSegmenter.from_pretrained("nano", device="cpu")


def test_the_memory_is_that_without_the_reference(segmenter: ReferenceSegmenter) -> None:
    segmenter.set_memory(None)
    segmenter.add_reference("cup", SCENE.image, SCENE.masks[0])
    before = segmenter.memory
    segmenter.add_reference("cup", SCENE.image, SCENE.masks[1])
    segmenter.remove_reference(1)
    assert before is not None
    assert segmenter.memory is not None
    assert segmenter.memory.vectors.equal(before.vectors)
    assert segmenter.segmenter.prototypes.equal(before.prototypes)  # type: ignore[arg-type]


def test_a_class_goes_with_its_last_positive_reference(segmenter: ReferenceSegmenter) -> None:
    segmenter.set_memory(None)
    segmenter.add_reference("cup", SCENE.image, SCENE.masks[0])
    segmenter.add_reference("coin", SCENE.image, SCENE.masks[1])
    segmenter.add_reference("cup", SCENE.image, SCENE.masks[1], negative=True)
    segmenter.remove_reference(0)
    assert segmenter.classes == ["coin"]
    assert len(segmenter.memory or []) == 1
    segmenter.remove_reference(0)
    assert segmenter.memory is None


def test_a_number_without_a_reference_is_refused(segmenter: ReferenceSegmenter) -> None:
    segmenter.set_memory(None)
    with pytest.raises(UserError, match="no reference 0: it has 0"):
        segmenter.remove_reference(0)

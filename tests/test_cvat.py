"""The detection function for CVAT, as ``cvat-cli task auto-annotate`` loads and calls it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from no_time_to_train import Instances, ReferenceSegmenter
from tests.conftest import Photo, nano_segmenter

cvat = pytest.importorskip("cvat_sdk.auto_annotation", reason="the cvat extra is not installed")
common = pytest.importorskip("cvat_cli._internal.common", reason="the cvat extra is not installed")

MODULE = "no_time_to_train_extras.cvat.auto_annotation"


@pytest.fixture(scope="module")
def segmenter(photo: Photo) -> ReferenceSegmenter:
    segmenter = nano_segmenter(5)
    segmenter.add_reference("thing", photo.path, photo.mask_path)
    return segmenter


@pytest.fixture(scope="module")
def function(segmenter: ReferenceSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("memory") / "a.memory"
    segmenter.save_memory(path)
    parameters = {"memory": str(path), "nano": True, "points_per_side": 5, "device": "cpu", "threshold": 0.0}
    return common.FunctionLoader(MODULE, None, parameters).load()


@pytest.fixture(scope="module")
def found(segmenter: ReferenceSegmenter, photo: Photo) -> Instances:
    return segmenter.segment(photo.path, threshold=0)


def annotate(function: Any, path: Path, **context: Any) -> list[Any]:
    """The shapes that CVAT's driver accepts for a task whose label ``thing`` has the id 70."""
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import driver

    label = models.Label(name="thing", id=70, type="any", attributes=[], sublabels=[])
    polygons = context.get("conv_mask_to_poly", False)
    mapper = driver._AnnotationMapper(
        logging.getLogger(), function.spec.labels, [label], allow_unmatched_labels=False, conv_mask_to_poly=polygons
    )
    described = driver._DetectionFunctionContextImpl(frame_name=path.name, **context)
    _, shapes = mapper.validate_and_remap(function.detect(described, Image.open(path)), 3)
    assert {(shape.label_id, shape.frame) for shape in shapes} == {(70, 3)}
    return list(shapes)


def test_cvat_gets_the_masks_and_scores_of_the_segmenter(function: Any, found: Instances, photo: Photo) -> None:
    from cvat_sdk.masks import decode_mask

    shapes = annotate(function, photo.path)
    height, width = photo.mask.shape
    for shape, one in zip(shapes, found, strict=True):
        assert (decode_mask(shape.points, image_width=width, image_height=height) == one.mask).all()
        assert shape.score == pytest.approx(one.score)


def test_the_threshold_of_the_command_line_counts(function: Any, found: Instances, photo: Photo) -> None:
    lowest = float(found.scores[0])
    shapes = annotate(function, photo.path, conf_threshold=lowest)
    assert len(shapes) == (found.scores >= lowest).sum() < len(found)


def test_polygons_of_one_group_are_the_parts_of_an_object(function: Any, found: Instances, photo: Photo) -> None:
    shapes = annotate(function, photo.path, conv_mask_to_poly=True)
    assert {str(shape.type) for shape in shapes} == {"polygon"}
    left = list(shapes)
    for one in found:
        parts = [left.pop(0)]
        while parts[0].group and left and left[0].group == parts[0].group:
            parts.append(left.pop(0))
        polygons = rle.frPyObjects([list(map(float, part.points)) for part in parts], *one.mask.shape)
        assert (rle.decode(rle.merge(polygons)).astype(bool) == np.asarray(one.mask)).all()
    assert not left

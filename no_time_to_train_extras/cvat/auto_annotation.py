"""A detection function for ``cvat-cli task auto-annotate``.

Its ``--function-module`` is ``no_time_to_train_extras.cvat.auto_annotation``.

``cvat_sdk`` calls :func:`create` with the values of ``-p NAME=TYPE:VALUE``, and the function's ``detect`` per image.
"""

import cvat_sdk.auto_annotation as cvat
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import LabeledShapeRequest
from PIL import Image

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.commands.options import NetworkOptions
from no_time_to_train.data.outlines import outlines
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks.registry import PresetName


class DetectObjects:
    """Finds the objects of a memory's classes.

    Args:
        segmenter: The networks and the memory.
        threshold: The lowest score of an object, in [0, 1], where ``cvat-cli`` has no ``--conf-threshold``.

    Attributes:
        spec: The classes, as CVAT's labels.
    """

    def __init__(self, segmenter: ReferenceSegmenter, threshold: float) -> None:
        self.segmenter, self.threshold = segmenter, threshold
        labels = [cvat.label_spec(name, number, type="mask") for number, name in enumerate(segmenter.classes)]
        self.spec = cvat.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvat.DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """The objects of an image as masks, or as polygons where CVAT asks for these.

        The parts of an object are polygons of one group.
        """
        threshold = self.threshold if context.conf_threshold is None else context.conf_threshold
        found = self.segmenter.segment(image, threshold)
        shapes = []
        for group, (label, one) in enumerate(zip(found.class_ids.tolist(), found, strict=True), start=1):
            if context.conv_mask_to_poly:
                parts = outlines(one.mask, "edges")
                more = {"score": one.score, "group": group if len(parts) > 1 else 0}
                shapes += [cvat.polygon(label, part.ravel().tolist(), **more) for part in parts]
            else:
                shapes.append(cvat.mask(label, encode_mask(one.mask), score=one.score))
        return shapes


def create(
    memory: str,
    threshold: float = 0.5,
    preset: PresetName | None = None,
    nano: bool = False,
    points_per_side: int = Settings.points_per_side,
    device: str | None = None,
) -> DetectObjects:
    """Build the networks and read a memory.

    Args:
        memory: The memory file, of ``segment --save-memory``.
        threshold: The lowest score of an object, in [0, 1].
        preset: The networks, as for ``segment`` (docs/speed.md).
        nano: Take the two small networks that ship with this package instead.
        points_per_side: Point prompts per side of the grid.
        device: Such as "cuda:1"; None takes the GPU if there is one.
    """
    networks = NetworkOptions(preset=preset, nano=nano, points_per_side=points_per_side, device=device)
    networks.check()
    segmenter = networks.build()
    segmenter.load_memory(memory)
    return DetectObjects(segmenter, threshold)

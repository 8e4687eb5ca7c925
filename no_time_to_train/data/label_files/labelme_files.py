"""LabelMe, and X-AnyLabeling: one JSON file per image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from no_time_to_train.data.images import shown_size
from no_time_to_train.data.label_files.labeled_objects import LabeledImage, LabeledObject, LabelFiles
from no_time_to_train.data.outlines import outlines
from no_time_to_train.files import relative_path, write_json


class LabelMeFiles(LabelFiles):
    """``STEM.json`` per image. The parts of an object are shapes with one group id. The images stay where they are."""

    form = "labelme"

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        path = self.folder / f"{image.stem}.json"
        can_stay = image.path.name.isprintable() and shown_size(image.path) == (image.height, image.width)
        file = image.path if can_stay else self.place_image(image, f"{image.stem}{image.path.suffix}")
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [shape for group, one in enumerate(objects) for shape in self.shapes(one, group)],
            "imagePath": relative_path(file, path.parent),
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        write_json(path, content)

    @classmethod
    def shapes(cls, one: LabeledObject, group: int) -> list[dict[str, Any]]:
        """The shapes of an object, the one or the parts of it, which then have the same group id."""
        parts = [one.corners[::2]] if one.mask is None else outlines(one.mask, "centers")
        return [
            {
                "label": one.label,
                # LabelMe refuses polygons of fewer than three points, which one row of pixels would be.
                "points": part.tolist() + part[-1:].tolist() * (0 if one.mask is None else 3 - len(part)),
                "group_id": group if len(parts) > 1 else None,
                "description": "" if one.score is None else f"score {one.score:.3f}",
                "shape_type": "rectangle" if one.mask is None else "polygon",
                "flags": {},
                "mask": None,
            }
            for part in parts
        ]


class XAnyLabelingFiles(LabelMeFiles):
    """The same with the score of each shape, next to the images: X-AnyLabeling opens the folder as it is."""

    form = "x-anylabeling"

    def add(self, image: LabeledImage, objects: Sequence[LabeledObject]) -> None:
        place = self.place_image(image, f"{image.stem}{image.path.suffix}")
        super().add(replace(image, path=place), objects)

    @classmethod
    def shapes(cls, one: LabeledObject, group: int) -> list[dict[str, Any]]:
        shapes = super().shapes(one, group + 1)  # group ids are positive
        corners = {"points": one.corners.tolist()} if one.mask is None else {}
        for shape in shapes:
            del shape["mask"]  # which LabelMe alone knows
            shape |= {"score": one.score, "description": "", **corners}
        return shapes

"""A reference, as every form gives it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.images import as_rgb, shown_size, stored_size
from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.prompts import check_box, check_point
from no_time_to_train.data.rle import Rle, decode_mask
from no_time_to_train.errors import UserError, first_of, plural

#: In place of a mask: the whole image shows the object.
WHOLE: Literal["whole"] = "whole"

#: x1, y1, x2, y2 in pixels, ends excluded.
Box = tuple[float, float, float, float]

#: x, y in pixels.
Point = tuple[float, float]


@dataclass(frozen=True)
class Reference:
    """One object: its class, its image, and its mask, a box around it, points on it, or nothing more.

    Attributes:
        mask: A mask file (the image itself where it is a transparent cut-out) or an RLE; "whole" where all of the image
            shows the object; None where SAM 2 makes the mask.
        box: The box around the object. Where there is a mask as well, the reference is cropped around the box.
        points: Points on the object. SAM 2 makes the mask from them, or from them and the box.
        negative_points: Points outside the object, which correct what the others show.
        size: Height and width of the image as the annotation states them; None where it does not.
        negative: Whether the object shows what the class is not.
        difficult: Whether VOC's evaluation leaves it out.
    """

    label: str
    image: Path
    mask: Path | Rle | Literal["whole"] | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    negative_points: tuple[Point, ...] = ()
    size: tuple[int, int] | None = None
    negative: bool = False
    difficult: bool = False

    @property
    def is_unmarked(self) -> bool:
        """Whether it is an image without a mask, a box or points."""
        return self.mask is None and self.box is None and not self.points

    is_plain = is_unmarked  # its old name, for this version

    @property
    def is_cut_out(self) -> bool:
        """Whether the mask is the transparency of the image itself, so that nothing is known around the object."""
        return isinstance(self.mask, Path) and self.mask == self.image

    def check_size(self) -> None:
        """Check by the files' headers, without reading pixels, that the mask, the box and the points fit the image."""
        if self.mask is None and not self.is_unmarked:
            size = self.size or shown_size(self.image)
            try:
                check_box(self.box or (0, 0, 1, 1), *size)
                for point in (*self.points, *self.negative_points):
                    check_point(point, *size)
            except UserError as error:
                raise UserError(f"reference {self.image} ({self.label}): {error}") from error
        if self.is_cut_out or self.mask is None or self.mask == WHOLE:
            return
        height, width = shown_size(self.mask) if isinstance(self.mask, Path) else self.mask["size"]
        if (height, width) not in (shown := shown_size(self.image), stored_size(self.image)):
            raise UserError(
                f"reference {self.image} ({self.label}): the mask is {width}x{height} pixels, its image "
                f"{shown[1]}x{shown[0]}: is it the mask of another image?"
            )

    def read_mask(self) -> NDArray[np.bool_] | None:
        """The object's mask, bool [H, W]; None where the annotation has none, or where it is the whole image."""
        if self.mask is None or self.mask == WHOLE:
            return None
        return as_mask(self.mask) if isinstance(self.mask, Path) else decode_mask(self.mask)

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """The image, uint8 [H, W, 3] RGB, and the object's mask, bool [H, W]; None where the reference has none."""
        mask = self.read_mask()
        image = as_rgb(self.image, self.size if mask is None else mask.shape)
        height, width = image.shape[:2]
        if self.size not in (None, (height, width)):
            stated = f"{self.size[1]}x{self.size[0]}"
            raise UserError(f"the image is {width}x{height} pixels, its annotation is for {stated}")
        return image, np.ones((height, width), bool) if self.mask == WHOLE else mask


def check_measurable(references: Iterable[Reference]) -> None:
    """Check that references are not all cut-outs, in whose images nothing can be searched."""
    if all(reference.is_cut_out for reference in references):
        raise UserError("cut-outs cannot be measured, because nothing is known around them: give images with masks")


@dataclass(frozen=True)
class FoundReferences:
    """The references in a folder or an annotation file.

    Attributes:
        form: The name of the form that they are in.
        references: At least one reference.
        category_ids: The ids of the classes by name, in the order in which the annotations list them; empty where the
            form has no such list.
        skipped: How many shapes that mark no area were passed over, by their kinds.
        unused: The files in the folder that the form did not need.
        empty: The images of the annotations in which no object is; of masks and class folders, none.
    """

    form: str
    references: list[Reference]
    category_ids: dict[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[Path, ...] = ()
    empty: tuple[Path, ...] = ()

    def describe(self, where: Path) -> str:
        """What was understood in a folder: the form, the references per class, and how many files were not used."""
        counted = sorted(Counter(reference.label for reference in self.references).items())
        text = f"{self.form} in {where}: {', '.join(f'{count} {label}' for label, count in counted)}"
        if not self.unused:
            return text
        some = first_of([path.name for path in self.unused])
        return f"{text}; {plural(len(self.unused), 'file')} not used: {some}"

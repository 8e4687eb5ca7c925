"""A page with the masks of references, to be looked at before anything long runs."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from no_time_to_train.analysis.recurring import Choice
from no_time_to_train.api.prompted_references import read_reference
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.reference_forms.reference import WHOLE, Reference
from no_time_to_train.errors import UserError, plural
from no_time_to_train.files import REPORT, check_replaceable
from no_time_to_train.visual.drawing import PALETTE, draw_mask
from no_time_to_train.visual.html import jpeg_base64, write_page

#: Longer side of a picture in pixels.
SIDE = 640


def write_references_page(
    references: Sequence[Reference], page: Path, build: Callable[[], ReferenceSegmenter]
) -> list[str]:
    """Write a page with the mask of each reference, in its image; return a line for each that cannot be used.

    ``build`` builds the networks, only if a reference has no mask. Such images get those of ``add_references``.
    """
    check_replaceable(page, REPORT)
    segmenter = cache(build)
    choices: dict[int, Choice] = {}
    if any(reference.is_unmarked for reference in references):
        references, choices = segmenter().describer.find_masks(references)
    elif any(reference.mask is None for reference in references):
        segmenter()
    classes: dict[str, list[dict[str, Any]]] = {reference.label: [] for reference in references}
    problems = []
    for index, reference in enumerate(tqdm(references, desc="references", unit=" object")):
        try:
            shown = read_reference(reference)
            image, mask = shown.pixels, shown.mask
            if mask is None:
                mask = segmenter().describer.mask(reference.label, shown, reference.negative, str(reference.image))
        except UserError as error:
            problems.append(f"{reference.image} ({reference.label}): {error}")
            continue
        number = list(classes).index(reference.label)
        classes[reference.label].append(
            {
                "name": reference.image.name,
                "negative": reference.negative,
                "origin": _origin(reference, choices.get(index)),
                "doubtful": index in choices and choices[index].doubtful,
                "share": f"{100 * mask.mean():.2g} %",
                "picture": _picture(reference, image, mask, number),
            }
        )
    negatives = sum(reference.negative for reference in references)
    count = plural(len(references) - negatives, "reference")
    count += f" and {plural(negatives, 'negative reference')}" if negatives else ""
    title = f"{count} of {plural(len(classes), 'class')}"
    write_page(page, "references.html", title=title, classes=classes, problems=problems)
    return problems


def _origin(reference: Reference, choice: Choice | None) -> str:
    """Where the mask of a reference comes from, for the page; ``choice`` is made where it was found in the image."""
    if choice is not None:
        return f"object found in the picture, the next region is {100 * (1 - choice.lead):.0f} % as likely"
    if reference.mask is not None:
        return "the whole image" if reference.mask == WHOLE else "mask as given"
    prompts = ["the box"] if reference.box is not None else []
    prompts += [plural(len(reference.points), "point")] if reference.points else []
    prompts += [plural(len(reference.negative_points), "negative point")] if reference.negative_points else []
    return f"mask made from {' and '.join(prompts)}"


def _picture(reference: Reference, image: NDArray[np.uint8], mask: NDArray[np.bool_], number: int) -> str:
    """The reference's image with the mask and the prompt, a JPEG in base64; ``number`` chooses the color."""
    height, width = mask.shape
    scale = min(SIDE / max(height, width), 1)
    size = max(round(scale * width), 1), max(round(scale * height), 1)
    picture = np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    draw_mask(picture, inside, 0, 0, PALETTE.by_idx(number).as_rgb(), line=2)
    if reference.mask is None and reference.box is not None:
        x1, y1, x2, y2 = (round(scale * value) for value in reference.box)
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), (255, 255, 255), 1)
    for points, thickness in ((reference.points, 2), (reference.negative_points, cv2.FILLED)):
        for point in points:
            x, y = (round(scale * value) for value in point)
            cv2.circle(picture, (x, y), 6, (255, 255, 255), thickness, cv2.LINE_AA)
    return jpeg_base64(picture)

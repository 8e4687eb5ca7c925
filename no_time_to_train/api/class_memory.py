"""The classes that a segmenter was shown: adding references, forgetting, numbering, and keeping them in a file."""

from __future__ import annotations  # help() then shows ImageInput rather than all that it stands for

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from no_time_to_train.api.describe_references import ReferenceDescriber
from no_time_to_train.api.prompted_references import ShownObject, read_reference, read_shown_object
from no_time_to_train.data.images import ImageInput, MaskInput
from no_time_to_train.data.memory_files import check_fits, load_memory, save_memory
from no_time_to_train.data.prompts import check_label, list_points
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.reference_image import OwnImage
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import ContextRatio
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes
from no_time_to_train.networks.registry import Precision, default_context_ratio
from no_time_to_train.ranges import check_number


class ClassMemory:
    """What a ``ReferenceSegmenter`` was shown, and the networks that describe it.

    The arguments and attributes are those of ``ReferenceSegmenter``.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: Sam2Boxes | SamBoxes,
        encoder_name: str,
        context_ratio: float | None = None,
        precision: Precision = "float32",
    ) -> None:
        if context_ratio is None:
            context_ratio = default_context_ratio(encoder_name)
        check_number("context_ratio", context_ratio, ContextRatio)
        self.segmenter, self.prompts = segmenter, prompts
        self.context_ratio, self.precision = context_ratio, precision
        self.memory: MemoryBank | None = None
        self.made_with: dict[str, Any] = {
            "encoder": encoder_name,
            "img_size": segmenter.encoder.size,
            "context_ratio": context_ratio,
            **({"debias": segmenter.encoder.debias} if segmenter.encoder.debias else {}),
        }

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.segmenter.encoder.normalize.mean.device

    @property
    def classes(self) -> list[str]:
        """The names of the classes in the memory, in ascending order of their ids."""
        return [] if self.memory is None else [category.name for category in self.memory.categories]

    def add_reference(
        self,
        label: str,
        image: ImageInput,
        mask: MaskInput | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        negative: bool = False,
        points: Sequence[Sequence[float]] = (),
        negative_points: Sequence[Sequence[float]] = (),
    ) -> NDArray[np.bool_]:
        """Show one object: an image, and the object's mask, a box around it, points on it, or nothing.

        A mask may come with a box, and a box with points. With nothing, the object is found
        (docs/your_own_objects.md). The first picture of a class is then judged alone; a later one is compared with the
        references of its class so far, which stay as they are. :meth:`add_references` compares all pictures with each
        other, which finds more objects. A :class:`UserNotice` says where the choice is doubtful.

        A negative reference is an object that resembles the class and is not of it; masks that are more like it than
        like the class get a lower score.

        Args:
            label: The name of the object's class. A name that the memory knows gets one more shot.
            image: A path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor [H, W] or [3, H, W]; RGB,
                as integers of 8 or 16 bits or as floats in [0, 1]. The pixels of what is not a file are kept for
                :meth:`measure_thresholds`, as long as the reference is in the memory.
            mask: The object's mask at the image's size: a path, a PIL image, or an array or tensor [H, W], in which the
                object is brighter than the rest; or "whole" for all of the image. Without it, SAM 2 makes one.
            box: x1, y1, x2, y2 in pixels, ends excluded. The reference is cropped around it.
            point: x, y in pixels of a point on the object; the same as one in ``points``. Of a part, an object and a
                group at a single point, the mask with the best predicted IoU counts.
            negative: Show what the class is not. The class must be known.
            points: x, y in pixels of points on the object.
            negative_points: x, y in pixels of points outside the object, next to points on it or a box.

        Returns:
            The object's mask, bool [H, W].
        """
        label = check_label(label)
        on_it = [*([] if point is None else [point]), *list_points(points)]
        shown = read_shown_object(image, mask, box, on_it, list_points(negative_points))
        path = str(image) if isinstance(image, str | Path) else None
        return self._show(label, shown, negative, path)

    def _show(self, label: str, shown: ShownObject, negative: bool, path: str | None) -> NDArray[np.bool_]:
        """Add an object to the memory, and return its mask; ``path`` is the file of its image."""
        if negative and label not in self.classes:
            raise UserError(f"show a {label} before what is no {label}: the memory has no class {label!r}")
        shot, inside = self.describer.shot(label, shown, negative, path or f"a picture of {label}")
        shot.made_with = self.made_with
        own = OwnImage.of(path, shown.pixels, inside)
        images = [] if self.memory is None else self.memory.images
        same = [one.pixels for one in images if one is not None and one.name == own.name]
        shot.images = [replace(own, pixels=same[0]) if same else own]  # one copy of the pixels is kept
        self._join(shot)
        return inside

    def add_references(self, references: Iterable[Reference]) -> None:
        """Show several objects, with a progress bar.

        Args:
            references: From ``data.reference_forms.find_references``, for example. Plain pictures among them get their
                masks from :meth:`find_masks`.
        """
        references = self.find_masks(list(references))
        for reference in tqdm(references, desc="references", unit=" object", disable=not references):
            try:
                label = check_label(reference.label)
                self._show(label, read_reference(reference), reference.negative, str(reference.image))
            except UserError as error:
                raise UserError(f"reference {reference.image} ({reference.label}): {error}") from error

    def find_masks(self, references: Sequence[Reference]) -> list[Reference]:
        """Find the objects of those references that are pictures only, and leave the memory as it is.

        The pictures of a class are compared with each other, with the references of the class that have a mask, a box
        or a point, and with the class's shots in the memory.

        Args:
            references: The references.

        Returns:
            The references in the same order; the pictures have masks now, except where none could be found.
        """
        return self.describer.find_masks(references)

    def remove(self, label: str) -> None:
        """Forget a class.

        Args:
            label: Its name.
        """
        if self.memory is None or label not in self.classes:
            raise UserError(f"the memory has no class {label!r}{suggest(str(label), self.classes)}")
        if len(self.classes) == 1:
            self.memory = None
        else:
            self.set_memory(self.memory.remove([label]))

    def remove_reference(self, number: int) -> None:
        """Forget one reference. A class without a positive one is forgotten, with its negative ones.

        Args:
            number: Its place in the memory's ``vectors``, from 0. Those after it move up by one.
        """
        count = 0 if self.memory is None else len(self.memory)
        if self.memory is None or not 0 <= number < count:
            raise UserError(f"the memory has no reference {number}: it has {count}")
        self.set_memory(self.memory.without(number))

    def set_memory(self, memory: MemoryBank | None) -> None:
        """Replace the memory.

        Args:
            memory: A post-processed one, made with the same encoder and context ratio; None forgets all classes.
        """
        self.memory = memory
        if memory is not None:
            assert memory.prototypes is not None
            self.segmenter.remember(memory.prototypes, memory.negatives)

    def renumber(self, ids: dict[str, int]) -> None:
        """Give the classes category ids, such as those of a ground truth.

        Args:
            ids: Category ids by class name. Other classes of the memory get the ids after the largest one.
        """
        if self.memory is not None and ids:
            self.set_memory(self.memory.renumber(ids))

    def save_memory(self, path: str | Path) -> None:
        """Write the memory to a file: vectors and pictures of the references, and no weights of the networks.

        Args:
            path: The file.
        """
        if self.memory is None:
            raise UserError("the memory is empty: add a reference first")
        save_memory(self.memory, path)

    def load_memory(self, path: str | Path) -> None:
        """Add the classes of a memory file to the known ones. Where both know a class, it gets the shots of both.

        Args:
            path: A file that :meth:`save_memory` or a stage of the command line wrote.
        """
        loaded = load_memory(path)
        check_fits(loaded, path, self.made_with, [])
        loaded.made_with = self.made_with
        self._join(loaded)

    def _require_memory(self) -> MemoryBank:
        """The memory, which must not be empty."""
        if self.memory is None:
            raise UserError("the memory is empty: add a reference or load a memory first")
        return self.memory

    def _join(self, bank: MemoryBank) -> None:
        """Add the classes and shots of a bank to the memory."""
        self.set_memory(MemoryBank.join([bank] if self.memory is None else [self.memory, bank]))

    @property
    def describer(self) -> ReferenceDescriber:
        """What turns references into shots."""
        return ReferenceDescriber(self.segmenter, self.prompts, self.context_ratio, self.precision, self.memory)

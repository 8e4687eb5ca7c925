"""The vectors of what a person showed, kept on disk, and the memory that follows from the annotations."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.api.prompted_references import read_prompted
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.app.project import Annotation
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.rle import decode_mask
from no_time_to_train.method.memory_bank import Category, MemoryBank


class Shots:
    """The shots of annotations. A shot depends on the photo and the mask only, so that undo and redo need no networks.

    Args:
        path: The file of the shots: a memory of one class, whatever classes the shots are of. One that was made with
            another encoder is not used.
    """

    def __init__(self, segmenter: ReferenceSegmenter, path: Path) -> None:
        self.segmenter, self.path, self.lock = segmenter, path, RLock()
        self.bank = load_memory(path) if path.exists() else None
        if self.bank is not None and self.bank.made_with != segmenter.made_with:
            self.bank = None
        self.rows = {} if self.bank is None else {source["img_id"]: row for row, source in enumerate(self.bank.sources)}

    def describe(self, annotations: Iterable[Annotation], pixels: Callable[[str], NDArray[np.uint8]]) -> None:
        """Let the networks describe the references that have no shot yet, and write the file."""
        with self.lock:
            missing = {key_of(one): one for one in annotations if one.reference and key_of(one) not in self.rows}
            for key, one in missing.items():
                shown = read_prompted(pixels(one.photo), decode_mask(one.mask))
                shot, _ = self.segmenter.describer.describe_prompted(one.label, shown, negative=False, path=one.photo)
                if self.bank is None:
                    self.bank = MemoryBank.empty([Category(1, "shots")], shot.vectors.shape[1])
                    self.bank.made_with = self.segmenter.made_with
                self.bank.add(0, shot.vectors[0], shot.weights[0], {"img_id": key, "ann_ids": [0]}, shot.crops[0])
                self.rows[key] = len(self.bank) - 1
            if missing and self.bank is not None:
                save_memory(self.bank, self.path)

    def memory(self, loaded: MemoryBank | None, annotations: Iterable[Annotation]) -> MemoryBank | None:
        """The memory of loaded classes and of annotations that are described.

        Args:
            loaded: Classes that were loaded; None where there are none.

        Returns:
            The memory, whose classes keep their ids as long as the order in which they were shown stays the same; None
            where it has no class.
        """
        references = [one for one in annotations if one.reference]
        labels = list(dict.fromkeys(one.label for one in references if one.verdict == "right"))
        known = [] if loaded is None else [category.name for category in loaded.categories]
        references = [one for one in references if one.label in labels or one.label in known]
        if not references or self.bank is None:
            return loaded
        order = labels + [name for name in known if name not in labels]
        rows = [self.rows[key_of(one)] for one in references]
        shown = MemoryBank(
            [Category(number, name) for number, name in enumerate(order, start=1)],
            self.bank.vectors[rows],
            torch.tensor([order.index(one.label) for one in references], dtype=torch.int64),
            self.bank.weights[rows],
            made_with=self.segmenter.made_with,
            crops=[self.bank.crops[row] for row in rows],
            negative=torch.tensor([one.verdict == "wrong" for one in references]),
        )
        return MemoryBank.join([shown] if loaded is None else [loaded, shown])


def shown_in(bank: MemoryBank, annotations: Iterable[Annotation]) -> dict[int, Annotation]:
    """The annotations that shots of a memory were made of, by the shot's number.

    Args:
        bank: From :meth:`Shots.memory`. Within each class, the shots that were loaded come first.
    """
    found: dict[int, Annotation] = {}
    for index, category in enumerate(bank.categories):
        shown = [one for one in annotations if one.reference and one.label == category.name]
        numbers = (bank.class_index == index).nonzero()[:, 0].tolist()
        found |= zip(numbers[len(numbers) - len(shown) :], shown, strict=True)
    return found


def key_of(annotation: Annotation) -> str:
    """What identifies the shot of an annotation: the photo and the mask."""
    text = f"{annotation.mask['size']} {annotation.mask['counts']} {annotation.photo}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

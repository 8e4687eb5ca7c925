"""References in the app: those in the annotated photos, and the thresholds that they show."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import RLock

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.analysis.annotated_proposals import annotate
from no_time_to_train.analysis.leave_one_out import MeasuredImage, leave_one_out
from no_time_to_train.analysis.score_thresholds import best_thresholds
from no_time_to_train.api.prompted_references import naming, read_prompted, read_reference
from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import shown_size
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_forms.reference import Reference
from no_time_to_train.data.rle import decode_mask, encode_mask
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.errors import UserError
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.settings import Settings
from no_time_to_train_extras.app.project import Annotation, Verdict
from no_time_to_train_extras.app.search import Photo, identity

#: The longer side at which masks are compared, in pixels.
SIDE = 256

#: Photos whose small masks stay in memory, some megabytes each.
KEPT_PHOTOS = 40


class AnnotatedReferences:
    """The vectors of annotated references, kept on disk: undo and redo need no networks.

    Args:
        path: A memory of one class, whatever classes the references are of. It is not used with another encoder.
    """

    def __init__(self, segmenter: ReferenceSegmenter, path: Path) -> None:
        self.segmenter, self.path, self.lock = segmenter, path, RLock()
        self.bank = load_memory(path) if path.exists() else None
        if self.bank is not None and self.bank.made_with != segmenter.made_with:
            self.bank = None
        self.rows = {} if self.bank is None else {source["img_id"]: row for row, source in enumerate(self.bank.sources)}

    def describe(
        self, annotations: Iterable[Annotation], pixels: Callable[[str], NDArray[np.uint8]], new: bool = True
    ) -> None:
        """Let the networks describe the references that have no vectors yet, and write the file.

        Args:
            new: Whether a reference whose photo cannot be read is a mistake. If not, it is left out.
        """
        with self.lock:
            missing = {key_of(one): one for one in annotations if one.reference and key_of(one) not in self.rows}
            for key, one in missing.items():
                try:
                    prompted = read_prompted(pixels(one.photo), decode_mask(one.mask))
                except UserError:
                    if new:
                        raise
                    continue
                describe = self.segmenter.describer.describe_prompted
                made, _ = describe(one.label, prompted, negative=False, path=one.photo)
                if self.bank is None:
                    self.bank = MemoryBank.empty([Category(1, "shots")], made.vectors.shape[1])
                    self.bank.made_with = self.segmenter.made_with
                self.bank.add(0, made.vectors[0], made.weights[0], {"img_id": key, "ann_ids": [0]}, made.crops[0])
                self.rows[key] = len(self.bank) - 1
            if missing and self.bank is not None:
                save_memory(self.bank, self.path)

    def of(self, annotations: Iterable[Annotation]) -> list[Annotation]:
        """Those of the annotations that are references with vectors."""
        return [one for one in annotations if one.reference and key_of(one) in self.rows]

    def crops(self, annotations: Iterable[Annotation]) -> Iterator[tuple[Annotation, str, bytes | None]]:
        """The annotations that are references, each with a name for its picture and this PNG file, if there is one."""
        for one in self.of(annotations):
            key = key_of(one)
            crop = None if self.bank is None else self.bank.crops[self.rows[key]]
            yield one, key, None if crop is None else crop.numpy().tobytes()

    def memory(self, loaded: MemoryBank | None, annotations: Iterable[Annotation]) -> MemoryBank | None:
        """The memory of loaded classes and of annotations that are described; None where it has no class.

        Classes keep their ids as long as the order in which they were first confirmed stays the same.
        """
        references = self.of(annotations)
        labels = list(dict.fromkeys(one.label for one in references if one.verdict == "right"))
        known = [] if loaded is None else [category.name for category in loaded.categories]
        references = [one for one in references if one.label in labels or one.label in known]
        if not references or self.bank is None:
            return loaded
        order = labels + [name for name in known if name not in labels]
        rows = [self.rows[key_of(one)] for one in references]
        annotated = MemoryBank(
            [Category(number, name) for number, name in enumerate(order, start=1)],
            self.bank.vectors[rows],
            torch.tensor([order.index(one.label) for one in references], dtype=torch.int64),
            self.bank.weights[rows],
            made_with=self.segmenter.made_with,
            crops=[self.bank.crops[row] for row in rows],
            negative=torch.tensor([one.verdict == "wrong" for one in references]),
        )
        return MemoryBank.join([annotated] if loaded is None else [loaded, annotated])


def key_of(annotation: Annotation) -> str:
    """What identifies the vectors of a reference: the photo and the mask."""
    text = f"{annotation.mask['size']} {annotation.mask['counts']} {annotation.content or annotation.photo}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class AutomaticThresholds:
    """Finds the threshold of each class by leave-one-out over the photos with its references (docs/references.md).

    Args:
        proposals: Returns the proposals of a photo with a content; None where it has none yet, or another content.
    """

    def __init__(self, proposals: Callable[[str, str], DescribedProposals | None], settings: Settings) -> None:
        self.proposals, self.settings = proposals, settings
        self.small: OrderedDict[str, DescribedProposals] = OrderedDict()

    def measure(
        self, bank: MemoryBank, annotations: Sequence[Annotation], is_outdated: Callable[[], bool]
    ) -> Mapping[str, float] | None:
        """The thresholds of classes with enough references in different photos; None where the memory is outdated.

        Args:
            bank: From :meth:`AnnotatedReferences.memory`.
            annotations: From :meth:`AnnotatedReferences.of`.
        """
        by_photo: dict[tuple[str, str], dict[int, Annotation]] = {}
        for index, category in enumerate(bank.categories):
            of_class = [one for one in annotations if one.label == category.name]
            numbers = (bank.class_index == index).nonzero()[:, 0].tolist()
            for number, one in zip(numbers[len(numbers) - len(of_class) :], of_class, strict=True):  # loaded ones first
                by_photo.setdefault((one.photo, one.content), {})[number] = one
        outdated = False

        def images() -> Iterator[MeasuredImage]:
            nonlocal outdated
            for (name, content), references in by_photo.items():
                outdated = outdated or is_outdated()
                masks = [decode_mask(one.mask) for one in references.values()]
                size = masks[0].shape[0], masks[0].shape[1]
                if not outdated and (small := self._small(name, content, *size)) is not None:
                    yield MeasuredImage(name, annotate(small, size, masks), list(references))

        scores = leave_one_out(bank, images(), self.settings)
        if outdated:
            return None
        found = zip(bank.categories, best_thresholds(scores.classes), strict=True)
        return {category.name: threshold.score for category, threshold in found if threshold is not None}

    def _small(self, name: str, content: str, height: int, width: int) -> DescribedProposals | None:
        """The proposals of a photo with small masks; None where it has none."""
        if content in self.small:
            self.small.move_to_end(content)
            return self.small[content]
        proposals = self.proposals(name, content)
        if proposals is None:
            return None
        scale = min(SIDE / max(height, width), 1)
        masks = small_masks(proposals, max(round(scale * height), 1), max(round(scale * width), 1))
        self.small[content] = replace(proposals, upsampled_masks=masks.__getitem__, logits=None)
        if len(self.small) > KEPT_PHOTOS:
            self.small.popitem(last=False)
        return self.small[content]


def small_masks(proposals: DescribedProposals, height: int, width: int) -> Masks:
    """All masks at a small size, one by one: those of a large photo would not fit into memory together."""
    small = np.zeros((len(proposals), height, width), bool)
    for number in range(len(proposals)):
        row = torch.tensor([number])
        mask = proposals.at_full_size(row, proposals.upsampled_masks(row))[0].astype(np.float32)
        small[number] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) >= 0.5
    return Masks.pack(small)


def take_annotations(
    references: Sequence[Reference], photos: Sequence[TargetImage], segmenter: ReferenceSegmenter
) -> tuple[list[Annotation], list[Reference]]:
    """Make annotations of the references that mark an object in one of the photos, as if a person had confirmed it.

    Returns:
        The annotations, whose ids are 0; and the other references: those of other images, and images without a mask.
    """
    marked = {reference.image for reference in references if not reference.is_unmarked}
    contents = {image: identity(image, str(image)) for image in marked}
    copies = find_contents(set(contents.values()), photos)
    names = {image: copies[content][0] for image, content in contents.items() if content in copies}
    annotations, others = [], []
    for reference in references:
        name = names.get(reference.image)
        if name is None or reference.is_unmarked:
            others.append(reference)
            continue
        with naming(reference):
            prompted = read_reference(reference)
            mask = prompted.mask
            if mask is None:
                mask = segmenter.describer.mask(reference.label, prompted, reference.negative, str(reference.image))
            upright = mask.shape == shown_size(reference.image)
        if upright:
            verdict: Verdict = "wrong" if reference.negative else "right"
            annotations.append(Annotation(0, name, reference.label, encode_mask(mask), verdict))
        else:  # it was annotated as the file stores it, and the photo is shown turned
            others.append(reference)
    return annotations, others


def place(annotations: Sequence[Annotation], photos: Mapping[str, Photo]) -> list[Annotation]:
    """Find the photo of each annotation by its content, wherever the photo is now, and however it is called.

    Returns:
        The annotations with the names and contents of their photos. One whose photo is not there stays as it is.
    """
    wanted = dict.fromkeys((one.photo, one.content) for one in annotations)
    copies = find_contents({content for _, content in wanted if content}, [photo.target for photo in photos.values()])
    for name, photo in photos.items():
        if photo.content:  # a frame of a video
            copies.setdefault(photo.content, []).append(name)
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for name, content in wanted:
        known, names = content, copies.get(content, [])
        if not content and name in photos:  # of an earlier version
            with suppress(UserError):
                known, names = photos[name].identify(), [name]
        taken = {other for other, _ in found.values()}
        for other in sorted(names, key=lambda other: (other != name, other in taken))[:1]:  # each copy keeps its own
            photos[other].content = known
            found[name, content] = other, known
    now = [found.get((one.photo, one.content), (one.photo, one.content)) for one in annotations]
    return [replace(one, photo=name, content=known) for one, (name, known) in zip(annotations, now, strict=True)]


def find_contents(contents: set[str], photos: Iterable[TargetImage]) -> dict[str, list[str]]:
    """The names of the photos with some contents, from :func:`identity`; only files of the same size are read."""
    sizes, found = {content.split()[0] for content in contents}, dict[str, list[str]]()
    for target in photos:
        with suppress(UserError, OSError):  # the search says what is wrong with it
            if target.path is not None and str(target.path.stat().st_size) in sizes:
                found.setdefault(identity(target.path, target.name), []).append(target.name)
    return {content: found[content] for content in contents & found.keys()}

"""Proposals from files: boxes or masks that a detector or a segmenter wrote, as COCO results (docs/proposals.md)."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.data.coco import ImageId, as_id, is_number
from no_time_to_train.data.names import composed
from no_time_to_train.data.prompts import check_pixels
from no_time_to_train.data.rle import annotation_mask, are_coordinates, decode_mask
from no_time_to_train.errors import UserError, plural
from no_time_to_train.file_hashes import sha256
from no_time_to_train.files import read_json
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.settings import PROPOSALS_PER_IMAGE

#: The source that is SAM 2's own grid of points, or its guided points.
GRID = "grid"

#: What cannot count, whatever the image.
UNUSABLE = ("proposal", "with NaN or infinity")


@dataclass
class ProposalFile:
    """The proposals of a file, by image.

    Attributes:
        most: The proposals of an image that are kept, those of the highest scores.
        records: The records of each image, by file name or id.
        images: The key in ``records`` of each way to call an image; None where two images are called so.
        counts: How many things were left out, by what they are and why.
        asked: The images that were asked for, each with the id, or the name, of the target that asked.
    """

    path: Path
    most: int = PROPOSALS_PER_IMAGE
    records: dict[Any, list[dict[str, Any]]] = field(init=False, default_factory=dict)
    images: dict[Any, Any] = field(init=False, default_factory=dict)
    counts: Counter[tuple[str, str]] = field(init=False, default_factory=Counter)
    asked: dict[Any, ImageId] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        content = read_json(self.path)
        listed = isinstance(content, dict)
        records = content.get("annotations") if listed else content
        names = _file_names(content, self.path) if listed else {}
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            raise UserError(f"{self.path} holds no proposals: COCO results are a list of image_id, bbox and score")
        self.records = {name: [] for name in names.values()}
        for number, record in enumerate(records, start=1):
            image = as_id(record.get("file_name", record.get("image_id")))
            if type(image) not in (int, str):
                raise UserError(f"{self.path}: proposal {number} names no image: image_id or file_name is missing")
            image = record.get("file_name") or names.get(image, image)
            if self._is_usable(record, number):
                self.records.setdefault(image, []).append(record)
        if len({"segmentation" in record for chosen in self.records.values() for record in chosen}) > 1:
            raise UserError(f"{self.path}: some proposals have a segmentation and others have none: use two files")
        plain = [one for chosen in self.records.values() for one in chosen if "segmentation" not in one]
        check_pixels((_corners(one).tolist() for one in plain), self.path)
        for image, chosen in self.records.items():
            self.records[image] = sorted(chosen, key=lambda one: -one["score"])[: self.most]
            for name in _short_names(image):
                self.images[name] = None if name in self.images else image
        self.images.update({image: image for image in self.records})

    @property
    def name(self) -> str:
        """What results call this source."""
        return self.path.name

    def depends_on(self) -> list[Any]:
        """What the proposals depend on, as JSON values."""
        return [sha256(self.path), self.most]

    def _is_usable(self, record: dict[str, Any], number: int) -> bool:
        """Whether a proposal counts; a UserError where it cannot be read at all."""
        where = f"{self.path}: proposal {number}"
        score, box = record.get("score"), record.get("xyxy", record.get("bbox"))
        if not isinstance(score, int | float) or isinstance(score, bool):
            raise UserError(f"{where} has no score, a number from 0 to 1")
        is_box = isinstance(box, list) and len(box) == 4 and set(map(type, box)) <= {int, float}
        if not (is_box or "segmentation" in record):
            raise UserError(f"{where} has neither a bbox [x, y, w, h] nor xyxy [x1, y1, x2, y2] nor a segmentation")
        if not all(map(is_number, [score, *(box if is_box and box else [])])):
            self.counts[UNUSABLE] += 1
            return False
        if not 0 <= score <= 1:
            raise UserError(f"{where} has the score {score:g}: scores are from 0 to 1")
        return True

    def given(self, image_id: ImageId | None, name: str, height: int, width: int) -> Given:
        """The proposals of an image, in descending order of score.

        Args:
            image_id: Its id in the COCO file of the targets; None where there is none.
            name: Its file name, a relative path with slashes.
            height: Its height in pixels, which boxes are clipped to.
        """
        records = self.records_of(image_id, name)
        if any("segmentation" in record for record in records):
            return self._masks(records, height, width)
        return self._boxes(records, height, width)

    def records_of(self, image_id: ImageId | None, name: str) -> list[dict[str, Any]]:
        """The records of an image, which is counted where it has none."""
        keys = (name, image_id, *_short_names(name))
        image = next((self.images[key] for key in keys if self.images.get(key) is not None), None)
        if image is None:
            self.counts["image", "without a proposal"] += 1
            return []
        if (first := self.asked.setdefault(image, image_id or name)) != (image_id or name):
            raise UserError(f"{self.path}: {image!r} means both {first} and {name}: write file_name with its folders")
        return self.records[image]

    def key_of(self, image_id: ImageId | None, name: str) -> str:
        """What identifies the proposals of an image, whose masks need not be decoded for it."""
        parts = ("score", "xyxy", "bbox", "segmentation", "region")
        return json.dumps([[record.get(part) for part in parts] for record in self.records_of(image_id, name)])

    def _boxes(self, records: list[dict[str, Any]], height: int, width: int) -> Given:
        """The boxes of some proposals, clipped to the image; those outside it are counted."""
        corners = np.array([_corners(record) for record in records], np.float32).reshape(-1, 4)
        corners = corners.clip(0, np.array([width, height] * 2, np.float32))
        inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        self.counts["proposal", "outside the image"] += int((~inside).sum())
        scores = np.array([record["score"] for record in records], np.float32)
        return Given(torch.from_numpy(corners[inside]), torch.from_numpy(scores[inside]))

    def _masks(self, records: list[dict[str, Any]], height: int, width: int) -> Given:
        """The masks of some proposals, taken as they are; empty ones are counted."""
        pixels = (annotation_mask({"image_id": "?", **one}, height, width) for one in records)
        try:
            masks = Masks.from_crops(((mask, 0, 0) for mask in pixels), height, width)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error
        rows = np.flatnonzero(masks.areas)
        self.counts["proposal", "with an empty mask"] += len(records) - len(rows)
        masks, records = masks[rows], [records[row] for row in rows]
        regions = None
        if records and all("region" in record for record in records):
            try:
                regions = torch.from_numpy(np.stack([decode_mask(record["region"]) for record in records]))
            except ValueError as error:
                raise UserError(f"{self.path}: a region is no RLE of the others' size: {error}") from error
        scores = torch.tensor([record["score"] for record in records], dtype=torch.float32)
        return Given.of_masks(masks, scores, regions)

    def survey(self, images: Iterable[tuple[ImageId, str, int, int]]) -> list[str]:
        """What is left out of all targets, a line each for the user: images by id, name, height and width."""
        self.counts, self.asked = Counter({key: n for key, n in self.counts.items() if key == UNUSABLE}), {}
        for image_id, name, height, width in images:
            records = self.records_of(image_id, name)
            if not any("segmentation" in record for record in records):
                self._boxes(records, height, width)
        return self.notices()

    def notices(self) -> list[str]:
        """What was left out, a line each for the user, once all images were asked for."""
        unknown = len(self.records) - len(self.asked)
        counts = {**self.counts, ("image", "of the file that is no target"): unknown}
        return [f"proposals {self.path}: {plural(n, what)} {why}" for (what, why), n in counts.items() if n]


class NamedSource(Protocol):
    """What proposes boxes or masks in images, and what results call it."""

    @property
    def name(self) -> str: ...

    def depends_on(self) -> Any: ...


def read_files(proposals: str | Sequence[str], most: int = PROPOSALS_PER_IMAGE) -> list[ProposalFile | None]:
    """The sources that a setting names: ``grid``, files, or a list of these."""
    names = [proposals] if isinstance(proposals, str) else list(proposals)
    if not names or len(set(names)) < len(names):
        raise UserError("proposals names no source, or one of them twice: give grid, a file, or a list of these")
    return [None if name == GRID else ProposalFile(Path(name), most) for name in names]


def source_names(sources: Sequence[NamedSource | None]) -> list[str]:
    """What results call the sources."""
    return [GRID if source is None else source.name for source in sources]


def hash_sources(sources: Sequence[NamedSource | None]) -> dict[str, Any]:
    """The SHA-256 of the files, and how many proposals of an image count; empty where the grid is the only source."""
    if list(sources) == [None]:
        return {}
    return {"proposals": [GRID if one is None else one.depends_on() for one in sources]}


def _file_names(content: dict[str, Any], path: Path) -> dict[Any, str]:
    """The file names in the ``images`` of a COCO file, by id."""
    try:
        return {image["id"]: str(image["file_name"]) for image in content.get("images", [])}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: images is not a list of id and file_name") from error


def _short_names(image: Any) -> list[str]:
    """What else an image may be called: its name without folders, and that without its ending."""
    if not isinstance(image, str):
        return []
    path = PurePosixPath(composed(image).replace("\\", "/"))  # of a program on Windows
    return [path.name, path.stem]


def _corners(record: dict[str, Any]) -> NDArray[np.float64]:
    """The corners of a proposal's box, x1, y1, x2, y2 in pixels, which may lie outside the image."""
    x, y, third, fourth = record["xyxy"] if "xyxy" in record else record["bbox"]
    corners = [x, y, third, fourth] if "xyxy" in record else [x, y, x + third, y + fourth]
    if not are_coordinates([float(value) for value in corners]):
        return np.zeros(4)
    return np.array(corners, float)

"""The files that ``no-time-to-train segment`` and ``filter`` write."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from no_time_to_train.data.coco_results import from_coco_records
from no_time_to_train.data.instances import Instance, Instances
from no_time_to_train.data.label_files import FORMATS, LabeledImage, LabeledObject
from no_time_to_train.data.memory_files import save_memory
from no_time_to_train.data.targets import TargetImage
from no_time_to_train.data.voc import save_numbers
from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, link_or_copy, spreadsheet_cell, write_json
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.pipeline.summary import Best, Summary, Thresholds, filter_command
from no_time_to_train.visual.drawing import PALETTE, class_palette, save_picture
from no_time_to_train.visual.gallery import Gallery

#: Columns of ``instances.csv``.
COLUMNS = ["image", "instance", "class", "score", "x1", "y1", "x2", "y2", "area", "seconds"]

#: Instances per image below the threshold that the gallery has as well, so that its slider can go lower.
MORE = 20


class OutputFolder:
    """Writes what is found in images: :meth:`add` the files of one image, :meth:`finish` those of all.

    Nothing is written before the first image.

    ====================== =============================================================================================
    ``results.json``       COCO results: the instances that reach the thresholds
    ``all_results.json``   COCO results: all instances that the method returned
    ``images.json``        The images and categories that the results refer to, as a COCO file
    ``references.memory``  The memory
    ``instances.csv``      One line per instance
    ``counts.csv``         One line per image: the number of instances of each class; the last line has the totals
    ``masks/STEM.png``     In each pixel the number of its instance in ``instances.csv``, the best on top; 0 for none
    ``overlays/STEM.jpg``  The images with the instances drawn over them
    ``frames/``            The frames of videos
    ``video/STEM.mp4``     The overlays of a video's frames, as a video
    ``index.html``         A gallery
    ====================== =============================================================================================

    Args:
        out: The folder, to which no other process writes.
        memory: The memory, for the gallery and the names of the classes.
        formats: Further formats to write: those of ``label_files.FORMATS``, and "video".
        order: Names of classes in the order that the files shall give them; others follow by id.
        shown_as: The folder's path as the user gave it; by default, ``out``.
        summary: Where to count what is added.
        link: Make symbolic links to images in the label files' folders.
        colors: Colors of classes that a person chose, by name, such as ``#ff0080``.
    """

    def __init__(
        self,
        out: Path,
        memory: MemoryBank,
        thresholds: Thresholds,
        formats: Sequence[str] = (),
        order: Sequence[str] = (),
        shown_as: Path | None = None,
        summary: Summary | None = None,
        link: bool = False,
        colors: Mapping[str, str] | None = None,
    ) -> None:
        self.out, self.memory, self.thresholds = out, memory, thresholds
        self.colors = colors or {}
        self.palette = class_palette([one.name for one in memory.categories], self.colors) if colors else None
        self.shown_as = shown_as or out
        self.ids = [category.id for category in memory.categories]
        places = {name: place for place, name in reversed(list(enumerate(order)))}
        self.ordered = sorted(memory.categories, key=lambda category: places.get(category.name, len(places)))
        self.summary = summary or Summary()
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.all_results: list[dict[str, Any]] = []
        self.rows: list[list[Any]] = []
        self.counts: list[Counter[str]] = []
        self.by_source: Counter[str] = Counter()
        self.label_files = [FORMATS[name](out / name, self.ordered, link) for name in formats if name in FORMATS]
        self.videos = None
        if "video" in formats:
            from no_time_to_train_extras.video.annotated_videos import AnnotatedVideos

            self.videos = AnnotatedVideos(out)
        self.gallery: Gallery | None = None

    def add(self, target: TargetImage, image: NDArray[np.uint8], records: list[dict[str, Any]]) -> int:
        """Write the files of one image, and return the number of its instances that count.

        Args:
            image: Its pixels, uint8 [H, W, 3] RGB.
            records: COCO result records of all instances that the method returned, in descending order of score. Their
                image id is replaced.
        """
        if self.gallery is None:
            self.gallery = Gallery(self.out, self.memory, self.palette)
        image_id = target.image_id if target.image_id is not None else len(self.images) + 1
        records = [{**record, "image_id": image_id} for record in records]
        names = {category.id: category.name for category in self.ordered}
        labels = [names[record["category_id"]] for record in records]
        counts = [record["score"] >= self.thresholds.of(label) for record, label in zip(records, labels, strict=True)]
        below = [index for index, kept in enumerate(counts) if not kept]
        shown = sorted(set(range(len(records))).difference(below[MORE:]))
        detections = from_coco_records([records[index] for index in shown], self.ids, *image.shape[:2])
        with_more = Instances(image, self.memory.categories, detections, target.path)
        instances = with_more[np.array([counts[index] for index in shown], bool)]

        overlay = f"overlays/{target.stem}.jpg"
        save_picture(np.asarray(instances.plot(self.palette)), self.out / overlay)
        save_mask(instances, self.out / "masks" / f"{target.stem}.png")
        labeled = LabeledImage(target.name, target.stem, self._file_of(target, image), image_id, *image.shape[:2])
        if self.label_files:
            objects = [labeled_object(instance) for instance in instances]
            for files in self.label_files:
                files.add(labeled, objects)
        if self.videos is not None and target.video is not None:
            self.videos.add(target, self.out / overlay)
        self.gallery.add(target.name, overlay, with_more, sources=[records[index].get("source", "") for index in shown])

        seconds = "" if target.seconds is None else f"{target.seconds:.3f}"
        columns = (instances.labels, instances.scores, instances.boxes, instances.areas)
        values = zip(*(column.tolist() for column in columns), strict=True)
        for number, (label, score, box, area) in enumerate(values, start=1):
            self.rows.append([target.name, number, label, f"{score:.4f}", *box, area, seconds])
        self.all_results += records
        kept = [record for record, count in zip(records, counts, strict=True) if count]
        self.results += kept
        self.by_source.update(record["source"] for record in kept if "source" in record)
        self.images.append(self._entry(target, labeled, *image.shape[:2]))
        self.counts.append(Counter(instances.labels.tolist()))
        self.summary.images += 1
        self.summary.found.update(self.counts[-1])
        if records:
            best = Best(records[0]["score"], labels[0], target.name)
            self.summary.best = best if self.summary.best is None else max(self.summary.best, best)
        return len(instances)

    def finish(self) -> None:
        """Write the files of all images that were added, if there are any."""
        if self.gallery is None:
            return
        if gone := next((one for one in self.images if not (self.out / f"masks/{one['stem']}.png").is_file()), None):
            raise UserError(f"{self.shown_as}/masks/{gone['stem']}.png is gone: was the folder moved? Run this again")
        save_memory(self.memory, self.out / "references.memory")
        write_table(self.out / "instances.csv", [COLUMNS, *self.rows])
        classes = [category.name for category in self.ordered]
        counts = [
            [image["file_name"], *(count[name] for name in classes)]
            for image, count in zip(self.images, self.counts, strict=True)
        ]
        totals = [self.summary.found[name] for name in classes]
        write_table(self.out / "counts.csv", [["image", *classes], *counts, ["total", *totals]])
        write_json(self.out / "all_results.json", self.all_results, indent=None)
        write_json(self.out / "results.json", self.results)
        categories = [
            {"id": one.id, "name": one.name, **({"color": self.colors[one.name]} if one.name in self.colors else {})}
            for one in self.ordered
        ]
        info = {"score": self.thresholds.score, "class_scores": dict(self.thresholds.class_scores)}
        content = {"info": info, "images": self.images, "annotations": [], "categories": categories}
        write_json(self.out / "images.json", content)
        for files in self.label_files:
            files.finish()
        if self.videos is not None:
            self.videos.finish()
        self.gallery.finish(
            self.shown_as.resolve().name,
            command=filter_command(self.shown_as),
            score=self.thresholds.score,
            class_scores=self.thresholds.class_scores,
            facts={} if self.summary.found else {"nothing found; best score": str(self.summary.best)},
        )

    def _file_of(self, target: TargetImage, image: NDArray[np.uint8]) -> Path:
        """The file of an image. Frames of videos get one in ``frames/``."""
        if target.video is None:
            assert target.path is not None
            return target.path
        place = self.out / "frames" / target.name
        if target.path is None:
            save_picture(image, place)
        elif target.path != place:
            link_or_copy(target.path, place)
        return place

    def _entry(self, target: TargetImage, image: LabeledImage, height: int, width: int) -> dict[str, Any]:
        """The entry of an image in ``images.json``."""
        path, out = image.path.absolute(), self.out.resolve()
        near = path.is_relative_to(out.parent)  # then they may be moved together
        entry = {
            "id": image.image_id,
            "file_name": target.name,
            "height": height,
            "width": width,
            "path": Path(os.path.relpath(path, out)).as_posix() if near else str(path),
            "stem": target.stem,
        }
        return entry if target.video is None else {**entry, "video": target.video, "seconds": target.seconds}


def save_mask(instances: Instances, path: Path) -> None:
    """Write an image's masks as a PNG file: with a palette, or of 16 bits where there are more than 255.

    Args:
        instances: What was found in the image. A pixel holds the number of its instance, from 1, the best on top, or 0.
    """
    numbers = np.zeros(instances.image.shape[:2], np.uint16)
    for index in reversed(range(len(instances))):
        crop, top, left = instances.detections.masks.crop(index)
        numbers[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = index + 1
    save_numbers(numbers, path, [channel for index in range(255) for channel in PALETTE.by_idx(index).as_rgb()])


def labeled_object(instance: Instance) -> LabeledObject:
    """An instance as label files take it: the end of its box is excluded there."""
    x1, y1, x2, y2 = instance.box
    return LabeledObject(instance.label, (x1, y1, x2 + 1, y2 + 1), instance.mask, instance.score)


def write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in UTF-8."""
    with atomic_write(path) as file:
        table = TextIOWrapper(file, encoding="utf-8", newline="")
        csv.writer(table).writerows(map(spreadsheet_cell, row) for row in rows)
        table.detach()

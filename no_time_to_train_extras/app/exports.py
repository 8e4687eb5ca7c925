"""Exports: what is found and said, as a folder of ``segment``."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

from no_time_to_train.data.rle import mask_box
from no_time_to_train.errors import UserError
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.pipeline.replace_folder import is_finished, new_output
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train.pipeline.summary import Summary, Thresholds
from no_time_to_train_extras.app.corrections import Item, correct
from no_time_to_train_extras.app.search import TryAgain, named
from no_time_to_train_extras.app.workspace import Workspace


class Exports:
    """The exports to one folder, one at a time.

    Attributes:
        summary: What the folder holds, once it was written.
    """

    def __init__(self, workspace: Workspace, out: Path) -> None:
        self.workspace, self.out = workspace, out
        self.lock, self.summary = RLock(), Summary()
        self._written: tuple[Any, ...] = ()

    def write(self, formats: Sequence[str]) -> Summary:
        """Write the folder."""
        with self.lock:
            state = self._state(formats)
            self.summary, self._written = export(self.workspace, self.out, list(dict.fromkeys(formats))), state
            return self.summary

    def update(self, formats: Sequence[str]) -> None:
        """Write the folder unless it holds what would be written."""
        with self.lock:
            if self._written != self._state(formats) or not is_finished(self.out):
                self.write(formats)

    def _state(self, formats: Sequence[str]) -> tuple[Any, ...]:
        """Differs wherever an export differs."""
        workspace = self.workspace
        return workspace.project.version, workspace.search.changes, workspace.number_of_automatic, *sorted(set(formats))


def export(workspace: Workspace, out: Path, formats: Sequence[str] = ()) -> Summary:
    """Write the objects of all photos that were searched as a folder of ``segment``; return what was written.

    An object that a person confirmed has the score 1 and ``"confirmed": true`` in the COCO results.
    """
    summary, waiting = Summary(), []
    workspace.search.catch_up()  # most of it here, where nobody who does a step has to wait
    with workspace.project.lock:  # classes, thresholds and objects go together
        workspace.search.catch_up()
        memory, thresholds = workspace.segmenter.memory, workspace.thresholds
        if memory is None:
            raise UserError(workspace.absent() or "there is nothing to export yet: show an object first")
        ids = {category.name: category.id for category in memory.categories}
        colors = {label: color for label, color in workspace.project.colors.items() if label in ids}
        found = []
        for name, photo in sorted(workspace.photos.items()):
            known = [item for item in photo.found if item.label in ids]
            if photo.problem:
                summary.skipped.append(photo.problem)
                with suppress(TryAgain):  # what is repaired is searched again
                    workspace.search.check(name)
            elif photo.memory == workspace.search.memory:
                found.append((photo.target, correct(known, workspace.said(name), Thresholds(0))))
            else:
                waiting.append(f"{name}: not searched yet")
    if not found:
        raise UserError("; ".join(summary.skipped[:1]) or "no photo was searched yet: wait for the first one")
    summary.skipped += waiting
    with new_output(out, overwrite=True) as folder, record_stage(folder, "app", {}):
        output = OutputFolder(folder, memory, thresholds, formats, (), out, summary, colors=colors)
        for target, items in found:
            try:
                pixels = workspace.search.read(target.name)
                records = [_record(item, ids, pixels.shape[:2]) for item in items]
            except UserError as error:  # it fails alone
                summary.skipped.append(named(target.name, error))
                continue
            output.add(target, pixels, records)
        if not summary.images:
            raise UserError(f"no photo can be exported: {summary.skipped[0]}")
        output.finish()
    return summary


def _record(item: Item, ids: Mapping[str, int], size: tuple[int, ...]) -> dict[str, Any]:
    """The COCO result record of an object in a photo of this height and width."""
    if tuple(item.mask["size"]) != size or item.label not in ids:
        raise UserError(f"an object of class {item.label} has a mask of another size, or no reference: remove it")
    x, y, width, height = map(int, mask_box(item.mask))
    confirmed = {"confirmed": True} if item.confirmed else {}
    box = [x, y, width - 1, height - 1]
    return {"category_id": ids[item.label], "bbox": box, "score": item.score, "segmentation": item.mask, **confirmed}

"""Write what the app shows as the results of ``segment``: the same files, for the same programs."""

from collections.abc import Sequence
from pathlib import Path

from no_time_to_train.app.corrections import correct
from no_time_to_train.app.workspace import Workspace
from no_time_to_train.data.rle import mask_box
from no_time_to_train.errors import UserError
from no_time_to_train.pipeline.output_folder import OutputFolder
from no_time_to_train.pipeline.replace_folder import output_of_run
from no_time_to_train.pipeline.run_record import record_stage
from no_time_to_train.pipeline.summary import Summary, Thresholds


def export(workspace: Workspace, out: Path, formats: Sequence[str] = ()) -> Summary:
    """Write the objects of all photos that were searched to a folder (see ``OutputFolder``).

    An object that a person confirmed has the score 1 and ``"confirmed": true`` in the COCO results.

    Returns:
        What was written.
    """
    memory = workspace.segmenter.memory
    if memory is None:
        raise UserError("there is nothing to export yet: show an object first")
    ids = {category.name: category.id for category in memory.categories}
    summary = Summary()
    with output_of_run(out, overwrite=True) as folder, record_stage(folder, "app", {}):
        output = OutputFolder(folder, memory, workspace.thresholds, formats, (), out, summary)
        for name, photo in sorted(workspace.photos.items()):
            if photo.problem or photo.memory < 0:
                continue
            items = correct(photo.found, workspace.project.of_photo(name), Thresholds(0))
            boxes = [map(int, mask_box(item.mask)) for item in items]
            records = [
                {
                    "category_id": ids[item.label],
                    "bbox": [x, y, w - 1, h - 1],
                    "score": item.score,
                    "segmentation": item.mask,
                    **({"confirmed": True} if item.confirmed else {}),
                }
                for item, (x, y, w, h) in zip(items, boxes, strict=True)
            ]
            output.add(photo.target, workspace.opened.pixels(name), records)
        if not summary.images:
            raise UserError("no photo was searched yet: wait for the first one")
        output.finish()
    return summary

"""``convert``: annotations of one tool as those of another."""

from pathlib import Path
from typing import Literal

from no_time_to_train.commands.options import LabelFormat
from no_time_to_train.errors import UserError


def convert(source: Path, *, to: Literal[LabelFormat, "labelstudio"], out: Path, link: bool = False) -> None:
    """Write annotations of one tool as those of another.

    Args:
        source: A folder or an annotation file in any form that segment --references takes (docs/formats.md).
        to: The format to write, in a folder of this name.
        out: Folder for the result.
        link: Make symbolic links to the images. Default: hard links, or copies on another disk.

    Examples:
        no-time-to-train convert labels/ --to coco --out converted/
        no-time-to-train convert annotations.xml --to yolo --out data/
    """
    form = "label-studio" if to == "labelstudio" else to
    if not source.exists():
        raise UserError(f"{source} does not exist: give the folder or the file of the annotations")
    if (out / form).exists():
        raise UserError(f"{out / form} exists already: delete it, or give another --out")

    from no_time_to_train.pipeline.replace_folder import new_output
    from no_time_to_train_extras.conversion.convert_labels import convert as convert_annotations

    with new_output(out / form, overwrite=False) as folder:  # half a data set would be taken for a whole one
        found = convert_annotations(source, form, folder, link)
    print(f"{found.describe(source)}; written to {out / form}")

"""``segment``: find your own objects in a folder of pictures."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from no_time_to_train.errors import UserError


def segment(
    *,
    references: Path | None = None,
    reference: Sequence[str] = (),
    memory: Sequence[Path] = (),
    save_memory: Path | None = None,
    images: Sequence[str] = (),
    out: Path | None = None,
    format: Sequence[Literal["labelme", "yolo", "cvat-coco"]] = (),
    score: float = 0.5,
    every: int = 30,
    sam2: str = "sam2_hiera_large",
    dinov2: str = "dinov2_vitl14",
    nano: bool = False,
    sam_checkpoint: Path | None = None,
    points_per_side: int = 32,
    device: str | None = None,
) -> None:
    """Find your own objects: show a few of them, and get every one like them in your pictures.

    Args:
        references: Folder or annotation file with examples of the objects (docs/your_own_objects.md).
        reference: One example: LABEL:IMAGE:box=X1,Y1,X2,Y2 or :point=X,Y or :mask=FILE. May be given several times.
        memory: Memory kept from an earlier run. May be given several times.
        save_memory: Keep the examples in this memory file for the next run.
        images: Folders, globs, images, videos, or one COCO annotation file.
        out: Folder for the results.
        format: Label files to write as well.
        score: The lowest score of an instance, from 0 to 1.
        every: Of a video, one frame in this many.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        dinov2: DINOv2 by its checkpoint's name or path.
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points.
        points_per_side: Point prompts per side of the grid. Fewer are faster and may miss small objects.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.

    Examples:
        no-time-to-train segment --references refs/ --images photos/ --out out/
        no-time-to-train segment --reference boat:photo.jpg:box=10,20,200,180 --images photos/ --out out/
    """
    if not (references or reference or memory):
        raise UserError("nothing to look for: give --references FOLDER, --reference LABEL:IMAGE:box=..., or --memory")
    if not save_memory and not images:
        raise UserError("nothing to do: give --images, and --out for the results, or --save-memory")
    if images and not out:
        raise UserError("--out is missing: the folder to write the results to")
    if not 0 <= score <= 1 or every < 1 or points_per_side < 1:
        raise UserError("--score is from 0 to 1; --every and --points-per-side are at least 1")

    from no_time_to_train.data.reference_forms import Reference, find_references
    from no_time_to_train.data.reference_forms.command_line import parse
    from no_time_to_train.data.targets import find_targets

    examples: list[Reference] = []
    if references:
        form, found = find_references(references)
        examples += found
        print(f"references: {form} in {references}: {counts(one.label for one in found)}")
    examples += [parse(text) for text in reference]
    targets = find_targets(images, every, out) if images else None
    if targets is not None:
        print(f"targets: {targets.description}")

    from no_time_to_train.method.settings import Settings
    from no_time_to_train.pipeline.segment_images import segment_images
    from no_time_to_train.reference_segmenter import ReferenceSegmenter

    segmenter = ReferenceSegmenter.from_pretrained(
        "nano" if nano else sam2,
        None if nano else dinov2,
        device=device,
        sam_checkpoint=sam_checkpoint,
        settings=Settings(points_per_side=points_per_side),
    )
    for path in memory:
        segmenter.load_memory(path)
    segmenter.add_references(examples)
    if save_memory:
        segmenter.save_memory(save_memory)
        print(f"memory: {save_memory}")
    if targets is None or out is None:
        return
    segmenter.renumber(targets.category_ids)
    summary = segment_images(segmenter, targets, out, score, format)
    for reason in summary.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    what = counts(summary.found.elements()) or f"nothing (try a --score below {score:g})"
    resumed = f" ({summary.done_before} of them by the run before)" if summary.done_before else ""
    done = f"{summary.images} images{resumed}: {what}; open {out / 'index.html'}"
    if summary.interrupted:
        print(f"interrupted after {done}; run the same command again to resume")
        sys.exit(130)
    print(done)
    if not summary.images:
        raise UserError("no image could be read")


def counts(labels: Iterable[str]) -> str:
    """How many there are of each class, as text."""
    return ", ".join(f"{count} {label}" for label, count in sorted(Counter(labels).items()))

"""``segment``: find your own objects in a folder of pictures."""

import glob
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from no_time_to_train.commands.options import ExampleOptions, NetworkOptions
from no_time_to_train.errors import UserError, UserNotice, one_line, plural
from no_time_to_train.files import check_replaceable, real_path
from no_time_to_train.pipeline.replace_folder import REFERENCES_PAGE, check_output
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.ranges import Fraction, Positive, parse_number

if TYPE_CHECKING:
    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
    from no_time_to_train.data.reference_forms import Reference


def segment(
    *,
    examples: ExampleOptions,
    memory: Sequence[Path] = (),
    save_memory: Path | None = None,
    check_references: bool = False,
    images: Sequence[str] = (),
    out: Path | None = None,
    overwrite: bool = False,
    format: Sequence[Literal["labelme", "yolo", "cvat-coco", "video"]] = (),
    score: str = "0.5",
    class_score: Sequence[str] = (),
    every: Positive = 30,
    max_pixels: Positive | None = None,
    networks: NetworkOptions,
) -> None:
    """Find your own objects: show a few of them, and get every one like them in your pictures.

    Args:
        examples: Examples of the objects.
        memory: Memory kept from an earlier run. May be given several times.
        save_memory: Keep the examples in this memory file for the next run.
        check_references: Only write a page with the masks of the examples, references.html in --out, and end.
        images: Folders, globs, images, videos, or one COCO annotation file.
        out: Folder for the results.
        overwrite: Replace finished results in --out, once the new ones are complete.
        format: Label files to write as well, and annotated videos.
        score: The lowest score of an instance, from 0 to 1, or auto: for each class the one with the best expected F1,
            measured on the images of the examples (docs/references.md). The command filter changes it afterwards.
        class_score: The lowest score of one class: NAME=X. May be given several times.
        every: Of a video, one frame in this many.
        max_pixels: Read images of up to this many pixels. Default: 89478485, because larger ones may be harmful.
        networks: The networks and their settings.

    Examples:
        no-time-to-train segment --references refs/ --images photos/ --out out/
        no-time-to-train segment --reference boat:photo.jpg:box=10,20,200,180 --images photos/ --out out/
        no-time-to-train segment --reference boat:1.jpg --reference boat:2.jpg --images photos/ --out out/
        no-time-to-train segment --references refs/ --negatives not/ --images photos/ --out out/
        no-time-to-train segment --references refs/ --check-references --out out/
    """
    shown = examples.references or examples.reference
    if not (shown or memory):
        raise UserError("nothing to look for: give --references FOLDER, --reference LABEL:IMAGE:box=..., or --memory")
    if check_references and not (shown or examples.negatives or examples.negative):
        raise UserError("--check-references shows examples: give --references FOLDER or --reference")
    if not (save_memory or images or check_references):
        raise UserError("nothing to do: give --images, and --out for the results, or --save-memory")
    if (images or check_references) and not out:
        raise UserError("--out is missing: the folder to write the results to")
    if score == "auto" and not shown:
        raise UserError("--score auto measures the examples: give --references or --reference; a memory has no images")
    lowest = 0.5 if score == "auto" else parse_number("--score", score, Fraction)
    thresholds = Thresholds.parse(lowest, class_score)
    examples.parse()
    check_files(memory, images)
    if save_memory:
        check_memory_path(save_memory, out)
    if out:
        check_output(out, overwrite or check_references)
    networks.check(needed=not check_references)  # which needs them only where a reference has no mask

    from no_time_to_train.data.images import allow_pixels
    from no_time_to_train.data.targets import find_targets

    if max_pixels:
        allow_pixels(max_pixels)
    references, found = examples.read(memory)
    targets = find_targets(images, every, out) if images and not check_references else None
    if targets is not None:
        print(f"targets: {targets.description}")

    from no_time_to_train.pipeline.segment_images import segment_images

    if check_references and out is not None:
        show_references(references, out, partial(networks.build, memory))
        return
    segmenter = networks.build(memory)
    if segmenter.device.type == "cpu" and not (networks.nano or networks.sam2 or networks.dinov2):
        preset = networks.preset or "accurate"
        others = "balanced and fast take less time" if preset == "accurate" else "accurate takes more time"
        print(f"no GPU: preset {preset} on the CPU; {others} (--preset, docs/speed.md)")
    segmenter.add_references(references)
    segmenter.renumber(found.category_ids if found else {})
    thresholds.check_names(segmenter.classes)
    notice_similar(segmenter.classes)
    if save_memory:
        segmenter.save_memory(save_memory)
        print(f"memory: {save_memory}")
    if targets is None or out is None:
        return
    if score == "auto":
        thresholds = measured_thresholds(segmenter, thresholds)
    segmenter.renumber(targets.category_ids)
    order = [*targets.category_ids, *(found.category_ids if found else [])]
    summary = segment_images(segmenter, targets, out, thresholds, format, order, overwrite)
    for reason in summary.skipped:
        print(f"skipped: {one_line(reason)}", file=sys.stderr)
    resumed = f" ({summary.done_before} of the images by the run before)" if summary.done_before else ""
    if summary.interrupted:
        print(f"interrupted after {summary}{resumed}; run the same command again to resume")
        sys.exit(130)
    print(f"{summary}{resumed}{summary.advice(out)}; open {out / 'index.html'}")


def measured_thresholds(segmenter: "ReferenceSegmenter", given: Thresholds) -> Thresholds:
    """The thresholds of ``--score auto``; they are printed.

    Args:
        segmenter: The networks and the memory.
        given: What ``--class-score`` states, which counts more. Classes that cannot be measured get its ``score``.
    """
    chosen = {**segmenter.measure_thresholds(), **given.class_scores}
    for label in segmenter.classes:
        why = "" if label in chosen else " (not measured: that needs examples in two images)"
        print(f"--score auto: {label}: {chosen.get(label, given.score):g}{why}")
    return Thresholds(given.score, chosen)


def check_files(memories: Iterable[Path], images: Iterable[str]) -> None:
    """Check that everything that is to be read exists.

    Args:
        memories: The values of ``--memory``.
        images: The values of ``--images``.
    """
    for path in memories:
        if not path.is_file():
            raise UserError(f"memory not found: {path}; segment --save-memory writes one")
    for argument in images:
        if not Path(argument).exists() and next(glob.iglob(argument, recursive=True), None) is None:  # noqa: PTH207
            raise UserError(f"--images {argument}: there is no such file or folder")


def check_memory_path(path: Path, out: Path | None) -> None:
    """Check that a memory can be written to a path."""
    if not path.parent.is_dir():
        raise UserError(f"--save-memory {path}: there is no folder {path.parent}; create it first")
    check_replaceable(path)
    if out is not None and real_path(path).is_relative_to(real_path(out)):
        raise UserError(f"--save-memory {path}: {out} gets its own references.memory; choose a place outside it")


def show_references(examples: Sequence["Reference"], out: Path, build: Callable[[], "ReferenceSegmenter"]) -> None:
    """Write the page of the references, and end with an error where some of them cannot be used.

    Args:
        examples: The references.
        out: The folder of the page.
        build: Builds the networks, if they are needed.
    """
    from no_time_to_train.pipeline.show_references import write_references_page

    page = out / REFERENCES_PAGE
    problems = write_references_page(examples, page, build)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise UserError(f"{len(problems)} of {plural(len(examples), 'reference')} cannot be used; see {page}")
    print(f"{plural(len(examples), 'reference')}; open {page}")


def notice_similar(labels: Iterable[str]) -> None:
    """Say which classes have names that differ only in case or in spaces, because they may be meant as one."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault("".join(label.casefold().split()), []).append(label)
    for names in groups.values():
        if len(names) > 1:
            warnings.warn(f"{' and '.join(map(repr, names))} are different classes", UserNotice, stacklevel=2)

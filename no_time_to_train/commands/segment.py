"""``segment``: find your own objects in a folder of pictures."""

import glob
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from no_time_to_train.commands.reference_option import ReferenceOption, parse
from no_time_to_train.errors import UserError, UserNotice, one_line, plural, suggest
from no_time_to_train.files import check_replaceable, real_path
from no_time_to_train.method.settings import MODES, ContextRatio, ModeName, PointsPerSide, Prompts, Tiles
from no_time_to_train.networks.registry import PRESETS, Precision, PresetName, find_networks
from no_time_to_train.pipeline.replace_folder import REFERENCES_PAGE, check_output
from no_time_to_train.pipeline.summary import Thresholds, count_labels
from no_time_to_train.ranges import Fraction, NonNegative, Positive, parse_number

if TYPE_CHECKING:
    from no_time_to_train.data.reference_forms import Reference
    from no_time_to_train.reference_segmenter import ReferenceSegmenter


def segment(
    *,
    references: Path | None = None,
    reference: Sequence[str] = (),
    negatives: Path | None = None,
    negative: Sequence[str] = (),
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
    preset: PresetName | None = None,
    mode: ModeName = "paper",
    sam2: str | None = None,
    dinov2: str | None = None,
    nano: bool = False,
    debias: NonNegative = 0,
    sam_checkpoint: Path | None = None,
    context_ratio: ContextRatio | None = None,
    points_per_side: PointsPerSide = 32,
    tiles: Tiles = 1,
    prompts: Prompts | None = None,
    precision: Precision = "float32",
    device: str | None = None,
) -> None:
    """Find your own objects: show a few of them, and get every one like them in your pictures.

    Args:
        references: Folder or annotation file with examples of the objects (docs/your_own_objects.md).
        reference: One example: LABEL:IMAGE:box=X1,Y1,X2,Y2 or :point=X,Y or :mask=FILE; :mask=whole if all of the image
            shows the object; LABEL:IMAGE to have the object found. May be given several times.
        negatives: Folder or annotation file like --references, with what looks like the objects and is none: under the
            name of the class that it is not.
        negative: One such example, written like --reference. May be given several times.
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
        preset: accurate is the paper's choice, and the default; balanced and fast take smaller networks and guided
            prompts (docs/speed.md). The options --sam2, --dinov2 and --prompts override it.
        mode: paper scores and merges masks as the paper does; best has settings that found more on drawn scenes
            (docs/beyond_the_paper.md). Its scores are lower: see --score.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        dinov2: DINOv2 or another encoder by its checkpoint's name or path, or NAME=PATH (docs/encoders.md).
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        debias: How many directions that encode positions are removed from the encoder's tokens (docs/encoders.md).
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points.
        context_ratio: Context around an example, relative to its longer side. Default: what suits the encoder.
        points_per_side: Point prompts per side of the grid. Fewer are faster and may miss small objects.
        tiles: For small objects: look at the image as a whole and at N x N overlapping tiles of it (N * N + 1 times the
            work; docs/beyond_the_paper.md).
        prompts: grid decodes all points; guided only those whose surroundings resemble an example, which is faster.
        precision: What the networks compute in. bfloat16 is faster where the device has instructions for it.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.

    Examples:
        no-time-to-train segment --references refs/ --images photos/ --out out/
        no-time-to-train segment --reference boat:photo.jpg:box=10,20,200,180 --images photos/ --out out/
        no-time-to-train segment --reference boat:1.jpg --reference boat:2.jpg --images photos/ --out out/
        no-time-to-train segment --references refs/ --negatives not/ --images photos/ --out out/
        no-time-to-train segment --references refs/ --check-references --out out/
    """
    if not (references or reference or memory):
        raise UserError("nothing to look for: give --references FOLDER, --reference LABEL:IMAGE:box=..., or --memory")
    if check_references and not (references or reference or negatives or negative):
        raise UserError("--check-references shows examples: give --references FOLDER or --reference")
    if not (save_memory or images or check_references):
        raise UserError("nothing to do: give --images, and --out for the results, or --save-memory")
    if (images or check_references) and not out:
        raise UserError("--out is missing: the folder to write the results to")
    if score == "auto" and not (references or reference):
        raise UserError("--score auto measures the examples: give --references or --reference; a memory has no images")
    lowest = 0.5 if score == "auto" else parse_number("--score", score, Fraction)
    thresholds = Thresholds.parse(lowest, class_score)
    given = [*(parse(text) for text in reference), *(parse(text, "--negative") for text in negative)]
    check_files({"references": references, "negatives": negatives}, given, memory, images)
    if save_memory:
        check_memory_path(save_memory, out)
    if out:
        check_output(out, overwrite or check_references)
    if nano and preset:
        raise UserError("--nano and --preset both choose the networks: leave one of them out")
    networks = ("nano", None) if nano else (sam2, dinov2)
    if not check_references:  # which needs them only where a reference has no mask
        find_networks(*networks, *([sam_checkpoint] if sam_checkpoint else []), preset=preset)

    from dataclasses import replace

    from no_time_to_train.data.images import allow_pixels
    from no_time_to_train.data.reference_forms import find_references
    from no_time_to_train.data.targets import find_targets

    if max_pixels:
        allow_pixels(max_pixels)
    found = find_references(references) if references else None
    if found:
        print(f"references: {found.form} in {references}: {counts(one.label for one in found.references)}")
    examples = [*(found.references if found else []), *(one.reference() for one in given)]
    if negatives:
        found_negatives = find_references(negatives)
        labels = counts(one.label for one in found_negatives.references)
        print(f"negatives: {found_negatives.form} in {negatives}: {labels}")
        examples += [replace(one, negative=True) for one in found_negatives.references]
    check_negatives(examples, memory)
    targets = find_targets(images, every, out) if images and not check_references else None
    if targets is not None:
        print(f"targets: {targets.description}")

    from no_time_to_train.method.settings import Settings
    from no_time_to_train.pipeline.segment_images import segment_images
    from no_time_to_train.reference_segmenter import ReferenceSegmenter

    def build() -> ReferenceSegmenter:
        built = ReferenceSegmenter.from_pretrained(
            networks[0],
            networks[1],
            device=device,
            sam_checkpoint=sam_checkpoint,
            settings=Settings(
                points_per_side=points_per_side,
                tiles=tiles,
                prompts=prompts or PRESETS[preset or "accurate"].prompts,
                **MODES[mode],
            ),
            context_ratio=context_ratio,
            precision=precision,
            preset=preset,
            debias=debias,
        )
        for path in memory:
            built.load_memory(path)
        return built

    if check_references and out is not None:
        show_references(examples, out, build)
        return
    segmenter = build()
    if segmenter.device.type == "cpu" and not (nano or sam2 or dinov2):
        others = "balanced and fast take less time" if preset in (None, "accurate") else "accurate takes more time"
        print(f"no GPU: preset {preset or 'accurate'} on the CPU; {others} (--preset, docs/speed.md)")
    segmenter.add_references(examples)
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


def check_files(
    references: Mapping[str, Path | None],
    given: Iterable[ReferenceOption],
    memories: Iterable[Path],
    images: Iterable[str],
) -> None:
    """Check that everything that is to be read exists.

    Args:
        references: The values of ``--references`` and ``--negatives``, by name.
        given: The values of ``--reference`` and ``--negative``.
        memories: The values of ``--memory``.
        images: The values of ``--images``.

    Raises:
        UserError: Something does not exist.
    """
    for name, path in references.items():
        if path and not path.exists():
            raise UserError(f"{name} not found: {path}")
    for option in given:
        for file in (option.image, option.mask):
            if isinstance(file, Path) and not file.is_file():
                raise UserError(f"{option.option} {option.label}: file not found: {file}")
    for path in memories:
        if not path.is_file():
            raise UserError(f"memory not found: {path}; segment --save-memory writes one")
    for argument in images:
        if not Path(argument).exists() and next(glob.iglob(argument, recursive=True), None) is None:  # noqa: PTH207
            raise UserError(f"--images {argument}: there is no such file or folder")


def check_negatives(examples: Iterable["Reference"], memories: Iterable[Path]) -> None:
    """Check that each negative reference names a class of the positive ones or of a memory.

    Args:
        examples: The references.
        memories: The values of ``--memory``.

    Raises:
        UserError: One names another class, or a memory cannot be read.
    """
    from no_time_to_train.data.memory_files import load_memory

    wanted = [one for one in examples if one.negative]
    if not wanted:
        return
    known = {one.label for one in examples if not one.negative}
    known |= {category.name for path in memories for category in load_memory(path).categories}
    for one in wanted:
        if one.label not in known:
            raise UserError(
                f"the negative reference in {one.image} is of class {one.label!r}, which no reference shows"
                f"{suggest(one.label, known)}"
            )


def check_memory_path(path: Path, out: Path | None) -> None:
    """Check that a memory can be written to a path.

    Raises:
        UserError: Its folder does not exist, it is not a file, or it lies in the folder of the results.
    """
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
    from no_time_to_train.pipeline.check_references import write_references_page

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


def counts(labels: Iterable[str]) -> str:
    """How many there are of each class, as text."""
    return count_labels(Counter(labels))

"""``segment``: find your own objects in a folder of pictures."""

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from no_time_to_train.commands.options import (
    LabelFormat,
    NetworkOptions,
    ReferenceOptions,
    check_images,
    check_proposals,
    on_devices,
    read_thresholds,
)
from no_time_to_train.errors import UserError, UserNotice, one_line, plural
from no_time_to_train.files import check_memories, check_replaceable, real_path
from no_time_to_train.method.settings import PROPOSALS_PER_IMAGE
from no_time_to_train.pipeline.processes import is_first_process
from no_time_to_train.pipeline.replace_folder import REFERENCES_PAGE, check_output
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.ranges import Fraction, Positive

if TYPE_CHECKING:
    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
    from no_time_to_train.data.reference_forms import Reference


def segment(
    *,
    references: ReferenceOptions,
    memory: Sequence[Path] = (),
    save_memory: Path | None = None,
    show_references: bool = False,
    images: Sequence[str] = (),
    image_dir: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    format: Sequence[Literal[LabelFormat, "video"]] = (),
    link: bool = False,
    threshold: str = "0.5",
    class_score: Sequence[str] = (),
    every: Positive = 30,
    max_pixels: Positive | None = None,
    proposals: Sequence[str] = (),
    proposals_per_image: Positive = PROPOSALS_PER_IMAGE,
    names: Fraction = 0.0,
    names_only: Sequence[str] = (),
    names_model: str | None = None,
    compile: bool = False,
    devices: Positive = 1,
    num_nodes: Positive = 1,
    networks: NetworkOptions,
) -> None:
    """Find your own objects: show a few of them, and get every one like them in your pictures.

    Args:
        references: References of the objects.
        memory: Memory kept from an earlier run. May be given several times.
        save_memory: Keep the references in this memory file for the next run.
        show_references: Only write a page with the masks of the references, references.html in --out, and end.
        images: Folders, globs, images, videos, or one COCO annotation file.
        image_dir: The folder of the images that a COCO file lists. Default: they are looked for near the file.
        out: Folder for the results.
        overwrite: Replace finished results in --out, once the new ones are complete.
        format: Label files to write as well, and annotated videos (docs/formats.md).
        link: With --format, make symbolic links to the images. Default: hard links, or copies on another disk.
        threshold: The lowest score of an instance, from 0 to 1, or auto: for each class the one with the best expected
            F1, measured on the images of the references (docs/references.md). results filter changes it afterwards.
        class_score: The lowest score of one class: NAME=X. May be given several times.
        every: Of a video, one frame in this many.
        max_pixels: Read images of up to this many pixels. Default: 89478485, because larger ones may be harmful.
        proposals: What proposes masks: grid, SAM 2's own prompts, which is the default; a file of boxes or masks, as
            COCO results; or a network (docs/proposals.md). May be given several times.
        proposals_per_image: With --proposals, the best proposals of an image that are kept of a file or a network.
        names: How much the name of a class counts, next to its references, with a TIPSv2 encoder (docs/encoders.md).
        names_only: A class that has a name and no reference, with a TIPSv2 encoder. Without references. May be given
            several times.
        names_model: With --names or --names-only, a folder with a TIPSv2, or its name on the hub. Default: that of the
            encoder.
        compile: Let torch.compile translate the networks before the first image. It takes minutes, which many images
            make up for, and changes the last digits of the results (docs/speed.md).
        devices: Share the images among this many GPUs of the machine, or processes with --device cpu.
        num_nodes: Share them among this many machines as well, each of which runs this command
            (docs/several_gpus.md).
        networks: The networks and their settings.

    Examples:
        no-time-to-train segment --references refs/ --images photos/ --out out/
        no-time-to-train segment --reference boat:photo.jpg:box=10,20,200,180 --images photos/ --out out/
        no-time-to-train segment --reference boat:1.jpg --reference boat:2.jpg --images photos/ --out out/
        no-time-to-train segment --references refs/ --negatives not/ --images photos/ --out out/
        no-time-to-train segment --references refs/ --show-references --out out/
    """
    positive = references.references or references.reference
    if names_only and (positive or memory or save_memory or references.negatives or references.negative):
        raise UserError("--names-only stands alone: texts resemble images less than references do")
    if not (positive or memory or names_only):
        raise UserError("nothing to look for: give --references FOLDER, --reference LABEL:IMAGE:box=..., or --memory")
    if show_references and not (positive or references.negatives or references.negative):
        raise UserError("--show-references needs references: give --references FOLDER or --reference")
    if not (save_memory or images or show_references):
        raise UserError("nothing to do: give --images, and --out for the results, or --save-memory")
    if (images or show_references) and not out:
        raise UserError("--out is missing: the folder to write the results to")
    thresholds = read_thresholds(threshold, class_score, references)
    if names and threshold == "auto":
        raise UserError("--threshold auto measures references without names: give a number, or leave --names out")
    references.parse()
    check_memories(memory)
    check_images(images)
    if save_memory:
        check_memory_path(save_memory, out)
    if image_dir and not image_dir.is_dir():
        raise UserError(f"--image-dir {image_dir}: there is no such folder")
    several = (devices > 1 or num_nodes > 1) and bool(images) and not show_references
    if out and (not several or is_first_process()):
        check_output(out, overwrite or show_references)
    check_proposals(proposals, networks.tiles)
    networks.check(needed=not show_references)  # which needs them only where a reference has no mask
    networks, trainer = on_devices(networks, *((devices, num_nodes) if several else (1, 1)))

    from no_time_to_train.data.images import allow_pixels
    from no_time_to_train.data.reference_forms.reference import check_measurable
    from no_time_to_train.data.targets import find_targets

    if max_pixels:
        allow_pixels(max_pixels)
    examples, found = references.read(memory)
    targets = find_targets(images, every, out, image_dir) if images and not show_references else None
    if targets is not None:
        print(f"targets: {targets.description}")
    if not show_references:  # which shows all mistakes
        for example in examples:
            example.check_size()
        if not memory:
            thresholds.check_names({example.label for example in examples})
        if threshold == "auto":
            check_measurable(examples)

    from no_time_to_train.data.memory_files import notice_repeated
    from no_time_to_train.pipeline.segment_images import segment_images

    if trainer:
        from no_time_to_train.lightning_segment import share_images

    if show_references and out is not None:
        write_page(examples, out, networks.build)
        return
    proposing = {"proposer": proposals or "grid", "proposals_per_image": proposals_per_image}
    segmenter = networks.build(**proposing)
    if names:
        segmenter.use_names(names, names_model)
    if names_only:
        segmenter.add_names(names_only, names_model)
    for path in memory:
        segmenter.load_memory(path)
    if segmenter.device.type == "cpu" and not (networks.nano or networks.sam2 or networks.dinov2):
        preset = networks.preset or "accurate"
        others = "balanced and fast take less time" if preset == "accurate" else "accurate takes more time"
        print(f"no GPU: preset {preset} on the CPU; {others} (--preset, docs/speed.md)")
    segmenter.add_references(examples)
    assert segmenter.memory is not None
    notice_repeated(segmenter.memory)
    segmenter.renumber(found.category_ids if found else {})
    thresholds.check_names(segmenter.classes)
    notice_similar(segmenter.classes)
    if compile and targets is not None:
        print(f"compiled in {segmenter.compile():.0f} s")
    if trainer and targets and not trainer.is_global_zero:
        segmenter.renumber(targets.category_ids)
        share_images(trainer, segmenter, targets)
        return
    if save_memory:
        segmenter.save_memory(save_memory)
        print(f"memory: {save_memory}")
    if targets is None or out is None:
        return
    if threshold == "auto":
        thresholds = measured_thresholds(segmenter, thresholds)
    segmenter.renumber(targets.category_ids)
    order = [*targets.category_ids, *(found.category_ids if found else [])]
    share = partial(share_images, trainer, segmenter, targets) if trainer else None
    summary = segment_images(segmenter, targets, out, thresholds, format, order, overwrite, link, share)
    for reason in summary.skipped:
        print(f"skipped: {one_line(reason)}", file=sys.stderr)
    notes = list(summary.left_out)
    if summary.full:
        full = f"{plural(summary.full, 'image')} with {plural(networks.max_instances, 'instance')}, which is the most"
        more = f"there may be more; run again with --max-instances {4 * networks.max_instances}"
        notes.append(f"{full} that --max-instances allows: {more}")
    if summary.large:
        notes.append(f"nothing was found in {plural(summary.large, 'large image')}: small objects may need --tiles 3")
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    resumed = f" ({summary.done_before} of the images by the run before)" if summary.done_before else ""
    if summary.interrupted:
        done = f"{summary}{resumed}" if summary.images else plural(summary.done_before, "image")
        print(f"interrupted after {done}; run the same command again to resume")
        sys.exit(128 + summary.interrupted)
    print(f"{summary}{resumed}{summary.advice(out)}; open {out / 'index.html'}")


def measured_thresholds(segmenter: "ReferenceSegmenter", given: Thresholds) -> Thresholds:
    """The thresholds of ``--threshold auto``; they are printed.

    Args:
        segmenter: The networks and the memory.
        given: What ``--class-score`` states, which counts more. Classes that cannot be measured get its ``score``.
    """
    chosen = {**segmenter.measure_thresholds(), **given.class_scores}
    for label in segmenter.classes:
        why = "" if label in chosen else " (not measured: that needs references in two images)"
        print(f"--threshold auto: {label}: {chosen.get(label, given.score):g}{why}")
    return Thresholds(given.score, chosen)


def check_memory_path(path: Path, out: Path | None) -> None:
    """Check that a memory can be written to a path."""
    if not path.parent.is_dir():
        raise UserError(f"--save-memory {path}: there is no folder {path.parent}; create it first")
    check_replaceable(path, "a memory")
    if out is not None and real_path(path).is_relative_to(real_path(out)):
        raise UserError(f"--save-memory {path}: {out} gets its own references.memory; choose a place outside it")


def write_page(examples: Sequence["Reference"], out: Path, build: Callable[[], "ReferenceSegmenter"]) -> None:
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

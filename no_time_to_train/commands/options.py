"""Options that commands share: the references of the objects, and the networks with their settings."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from no_time_to_train.commands.reference_option import ReferenceOption, parse
from no_time_to_train.errors import UserError, suggest
from no_time_to_train.files import check_files, check_replaceable, matching_files
from no_time_to_train.method.settings import (
    ContextRatio,
    ImagesPerBatch,
    ModeName,
    PointsPerSide,
    Prompts,
    Settings,
    Tiles,
    of_mode,
)
from no_time_to_train.networks.registry import PRESETS, Precision, PresetName, find_networks
from no_time_to_train.pipeline.processes import is_first_process
from no_time_to_train.pipeline.summary import Thresholds
from no_time_to_train.ranges import Fraction, NonNegative, Positive, parse_number

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
    from no_time_to_train.data.reference_forms import FoundReferences, Reference

#: The formats of label files, as in ``data.label_files.FORMATS``.
LabelFormat = Literal[
    "labelme", "x-anylabeling", "yolo", "coco", "coco-train-val", "voc", "cvat", "cvat-coco", "label-studio", "crops"
]  # fmt: skip


@dataclass(frozen=True)
class ReferenceOptions:
    """References of the objects.

    Attributes:
        references: Folder or annotation file with references of the objects (docs/your_own_objects.md).
        reference: One reference: LABEL:IMAGE:box=X1,Y1,X2,Y2 or :point=X,Y or :mask=FILE; :mask=whole if all of the
            image shows the object; LABEL:IMAGE to have the object found. More :point=X,Y and :negative_point=X,Y
            correct a point or a box. May be given several times.
        negatives: Folder or annotation file like --references, with what looks like the objects and is none: under the
            name of the class that it is not.
        negative: One such reference, written like --reference. May be given several times.
    """

    references: Path | None = None
    reference: Sequence[str] = ()
    negatives: Path | None = None
    negative: Sequence[str] = ()

    def parse(self) -> list[ReferenceOption]:
        """The values of ``--reference`` and ``--negative``, without any slow import."""
        for path in (self.references, self.negatives):
            if path and not path.exists():
                raise UserError(f"{'references' if path is self.references else 'negatives'} not found: {path}")
        given = [*(parse(text) for text in self.reference), *(parse(text, "--negative") for text in self.negative)]
        for option in given:
            for file in (option.image, option.mask):
                if isinstance(file, Path) and not file.is_file():
                    raise UserError(f"{option.option} {option.label}: file not found: {file}")
        return given

    def read(self, memories: Sequence[Path] = ()) -> "tuple[list[Reference], FoundReferences | None]":
        """All references, and what the folder ``--references`` holds; what was found in folders is printed.

        Args:
            memories: Memory files with further classes, which negative references may name.
        """
        from no_time_to_train.data.reference_forms import find_references

        found = find_references(self.references) if self.references else None
        if found and self.references:
            print(f"references: {found.describe(self.references)}")
        given = [*(found.references if found else []), *(one.reference() for one in self.parse())]
        if self.negatives:
            negatives = find_references(self.negatives)
            print(f"negatives: {negatives.describe(self.negatives)}")
            given += [replace(one, negative=True) for one in negatives.references]
        check_negatives(given, memories)
        return given, found


@dataclass(frozen=True)
class NetworkChoice:
    """The networks, and how densely masks are proposed.

    Attributes:
        preset: accurate is the paper's choice, and the default; balanced and fast take smaller networks and, where
            --prompts is an option, guided prompts (docs/speed.md). Other options override it.
        sam2: SAM 2 by its checkpoint's name or path (download --list shows the names).
        dinov2: DINOv2 or another encoder by its checkpoint's name or path, or NAME=PATH (docs/encoders.md).
        nano: Use the two small networks that ship with this package. They know drawn patterns only.
        points_per_side: Point prompts per side of the grid. Fewer are faster and may miss small objects.
        max_instances: The most instances of an image. A notice says where an image has that many.
        device: Such as cuda:1 or cpu. Default: the GPU if there is one.
    """

    preset: PresetName | None = None
    sam2: str | None = None
    dinov2: str | None = None
    nano: bool = False
    points_per_side: PointsPerSide = Settings.points_per_side
    max_instances: Positive = Settings.max_instances
    device: str | None = None

    @property
    def names(self) -> tuple[str | None, str | None]:
        """The names of SAM 2 and of the encoder; None takes the preset's."""
        return ("nano", None) if self.nano else (self.sam2, self.dinov2)

    def check(self, *others: Path, needed: bool = True) -> None:
        """Check the choice without any slow import; where the networks are needed, also that their files exist.

        Args:
            others: Further checkpoints.
        """
        if self.nano and (other := self.preset or self.sam2 or self.dinov2):
            raise UserError(f"--nano and {other} both choose the networks: leave one of them out")
        if needed:
            find_networks(*self.names, *others, preset=self.preset, prompts=self.settings().get("prompts", "grid"))

    def settings(self) -> dict[str, Any]:
        """The method's settings that differ from the paper's, by their names in ``Settings``."""
        return {"points_per_side": self.points_per_side, "max_instances": self.max_instances}

    def build(self, **more: Any) -> "ReferenceSegmenter":
        """Build the networks; ``more`` are further arguments of ``ReferenceSegmenter.from_pretrained``."""
        from no_time_to_train.api.reference_segmenter import ReferenceSegmenter

        more |= {"device": self.device, "preset": self.preset}
        return ReferenceSegmenter.from_pretrained(*self.names, settings=Settings(**self.settings()), **more)


@dataclass(frozen=True)
class NetworkOptions(NetworkChoice):
    """The networks, and the settings that masks and scores depend on.

    Attributes:
        mode: paper scores and merges masks as the paper does; best has settings that found more on drawn scenes
            (docs/beyond_the_paper.md). Its scores are lower: see --threshold of segment. Or settings of your own
            (docs/extending.md).
        debias: How many directions that encode positions are removed from the encoder's tokens (docs/encoders.md).
        sam_checkpoint: Official checkpoint of SAM ViT-B, -L or -H, to make masks from boxes and points.
        context_ratio: Context around a reference, relative to its longer side. Default: what suits the encoder.
        tiles: For small objects: look at the image as a whole and at N x N overlapping tiles of it (N * N + 1 times the
            work; docs/beyond_the_paper.md).
        prompts: grid decodes all points; guided only those whose surroundings resemble a reference, which is faster.
        precision: What the networks compute in. bfloat16 is faster where the device has instructions for it; tf32 is
            float32 with fewer digits, on GPUs that have it (docs/speed.md).
        images_per_batch: Images, or tiles of one, that the encoders take at once. Default: on a GPU by its free memory,
            8 at most; 1 on a CPU.
    """

    mode: ModeName = "paper"
    debias: NonNegative = 0
    sam_checkpoint: Path | None = None
    context_ratio: ContextRatio | None = None
    tiles: Tiles = Settings.tiles
    prompts: Prompts | None = None
    precision: Precision = "float32"
    images_per_batch: ImagesPerBatch | None = None

    def check(self, *others: Path, needed: bool = True) -> None:
        super().check(*others, *([self.sam_checkpoint] if self.sam_checkpoint else []), needed=needed)

    def settings(self) -> dict[str, Any]:
        prompts = self.prompts or PRESETS[self.preset or "accurate"].prompts
        own = {"tiles": self.tiles, "prompts": prompts, "images_per_batch": self.images_per_batch}
        return {**super().settings(), **own, **of_mode(self.mode)}

    def build(self, **more: Any) -> "ReferenceSegmenter":
        for name in ("sam_checkpoint", "context_ratio", "precision", "debias"):
            more[name] = getattr(self, name)
        return super().build(**more)


def on_devices(networks: NetworkOptions, devices: int, num_nodes: int) -> "tuple[NetworkOptions, Trainer | None]":
    """The networks on the device of this process, and the trainer of all processes; None where there is one only."""
    if devices == num_nodes == 1:
        return networks, None
    if not is_first_process():
        os.environ["TQDM_DISABLE"] = "1"  # one process shows progress

    from no_time_to_train.light_imports import import_light

    import_light("pytorch_lightning")
    from no_time_to_train.lightning_items import build_trainer

    trainer = build_trainer(devices, num_nodes, networks.device)
    return replace(networks, device=str(trainer.strategy.root_device)), trainer


def read_thresholds(threshold: str, class_score: Sequence[str], references: ReferenceOptions) -> Thresholds:
    """The thresholds that ``--threshold`` and ``--class-score`` state; auto is the default until it is measured."""
    if threshold == "auto" and not (references.references or references.reference):
        raise UserError("--threshold auto measures references: give --references or --reference; a memory lacks images")
    given = Thresholds().score if threshold == "auto" else parse_number("--threshold", threshold, Fraction)
    return Thresholds.parse(given, class_score)


def check_new_file(path: Path, kind: str, *endings: str) -> None:
    """Check that a file of a kind in ``files.KINDS`` may be written to a path, whose ending says how it is read."""
    if path.suffix not in endings:
        raise UserError(f"{path}: {kind} has a name that ends in {' or '.join(endings)}")
    check_replaceable(path, kind)


def check_images(images: Iterable[str]) -> None:
    """Check that the folders, files and globs of ``--images`` exist, without any slow import."""
    for argument in images:
        if not Path(argument).exists() and not matching_files(argument):
            raise UserError(f"--images {argument}: there is no such file or folder")


def check_proposals(proposals: Sequence[str], tiles: int = 1) -> None:
    """Check that files of proposals and weights of networks exist, without the slow imports that reading them takes."""
    from no_time_to_train_extras.proposers import read_spec

    if len(set(proposals)) < len(proposals):
        raise UserError("--proposals names a source twice")
    if tiles > 1 and set(proposals) - {"grid"}:
        raise UserError("--tiles needs --proposals grid: other proposals are those of the whole image")
    for one in proposals:
        if one.endswith(".json"):
            check_files(Path(one))
        elif one != "grid":
            read_spec(one)


def check_negatives(references: Iterable["Reference"], memories: Iterable[Path]) -> None:
    """Check that each negative reference names a class of the positive ones or of a memory."""
    wanted = [one for one in references if one.negative]
    if not wanted:
        return

    from no_time_to_train.data.memory_files import load_memory

    known = {one.label for one in references if not one.negative}
    known |= {category.name for path in memories for category in load_memory(path).categories}
    for one in wanted:
        if one.label not in known:
            raise UserError(
                f"the negative reference in {one.image} is of class {one.label!r}, which no reference shows"
                f"{suggest(one.label, known)}"
            )

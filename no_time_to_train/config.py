"""The typed configuration of the stages: what ``configs/*.yaml`` and ``--model.init_args.*`` may contain.

The keys are those of the paper's code, and the defaults are the paper's numbers, which never change between data sets.
Where ``Settings`` has another name for a number, ``PUBLISHED_NAMES`` translates it.
``scripts/config_table.py --write`` makes the table of keys in docs/configuration.md from the docstrings below.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from no_time_to_train.data.class_splits import check_split
from no_time_to_train.errors import UserError
from no_time_to_train.method.settings import PROPOSALS_PER_IMAGE, ContextRatio, Settings, changed
from no_time_to_train.networks.encoders import check_name
from no_time_to_train.networks.registry import (
    ENCODER_NAMES,
    check_encoder_sizes,
    check_exist,
    check_sam2_name,
    default_checkpoint,
    default_context_ratio,
    encoder_info,
    encoder_input_size,
)
from no_time_to_train.ranges import Fraction, NonNegative, Positive, Range, Seed, check_fields

Protocol = Literal["coco", "voc", "lvis", "semantic"] | str  # of one's own

#: The kind of prototypes that only the stages have besides the paper's mean (``method/beyond/ablations.py``).
AREA_WEIGHTED = "area_weighted"

#: The largest side of the encoder's input in pixels: 65,536 patches of 16, which no attention of today can take.
LARGEST_SIZE = 4096


class ClassNames(list[str]):
    """Names of classes. jsonargparse copies a plain list once per element, which takes minutes for 4,000."""

    @classmethod
    def parse(cls, value: Any) -> "ClassNames":
        """The names in a list of a configuration.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ValueError("not a list of texts")
        return cls(value)


@dataclass
class Checked:
    """A part of a configuration whose numbers are checked when it is created."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class StageSettings(Settings):
    """Numbers that only the stages have, besides those of the method.

    Attributes:
        kmeans_k: k-means centers per class in the pictures of ``vis_memory``.
        n_pca_components: Principal components per class there.
        with_negative_refs: Whether negative references lower scores. Default: where the memory has some.
        negative_score_thr: The lowest score of a false positive that ``test_support`` takes as a negative reference.
        prototype: ``mean`` of the references' vectors; ``area_weighted`` weighs each by its mask's area, in
            ``postprocess_memory`` only.
    """

    kmeans_k: Positive = 4
    n_pca_components: Positive = 3
    with_negative_refs: bool | None = None
    negative_score_thr: Fraction = 0.0
    prototype: str = "mean"

    def __post_init__(self, prototype: str = "") -> None:  # noqa: RUF033  # a field here, which old records have
        super().__post_init__("mean" if self.prototype == AREA_WEIGHTED else self.prototype)


#: Names of ``Settings`` -> the paper's names for them, which configurations, caches and records have.
PUBLISHED_NAMES = {
    "points_per_batch": "testing_point_bs",
    "pred_iou_thresh": "iou_thr",
    "box_nms_thresh": "nms_thr",
    "max_instances": "num_out_instance",
    "classes_per_mask": "cls_num_per_mask",
}
OUR_NAMES = {published: ours for ours, published in PUBLISHED_NAMES.items()}


def renamed(content: Any, names: dict[str, str]) -> Any:
    """A configuration, or a part of it, with other names for keys, such as ``OUR_NAMES`` or ``PUBLISHED_NAMES``."""
    if isinstance(content, dict):
        return {names.get(key, key): renamed(value, names) for key, value in content.items()}
    return [renamed(part, names) for part in content] if isinstance(content, list) else content


@dataclass
class EncoderCfg(Checked):
    """The encoder that describes masks.

    Attributes:
        name: ``dinov2_{small,base,large,giant}``, each also with ``_reg`` (registers), or ``dinov2_nano``; DINOv3,
            PE-Spatial, CLIP, TIPSv2, ``timm:NAME`` (docs/encoders.md); or your own (docs/extending.md).
        img_size: Side of the encoder's square input in pixels, a multiple of that of its patches. Default: 518, or 336
            for ``dinov2_nano``; 592 for DINOv3; for others the size that they were trained with.
        patch_size: Kept for compatibility; checked where it is given.
        debias: How many directions that only encode positions are removed from all tokens (docs/encoders.md).
        norm: Whether tokens are taken after the network's final norm.
        keep_aspect: Whether an image keeps its aspect ratio: ``img_size`` is then its longer side. For DINOv2.
    """

    name: str = "dinov2_large"
    img_size: Annotated[int, Range(1, LARGEST_SIZE)] | None = None
    patch_size: Positive | None = None
    debias: NonNegative = 0
    norm: bool = True
    keep_aspect: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoder_sizes(self.name, self.img_size, self.patch_size)
        if self.keep_aspect and not self.name.startswith("dinov2"):
            raise UserError(f"encoder_cfg.keep_aspect needs a DINOv2, not {self.name}")
        if self.debias and (self.keep_aspect or not self.norm):
            raise UserError("encoder_cfg.debias needs norm true and keep_aspect false")

    @property
    def unusual(self) -> dict[str, Any]:
        """What memories, caches and journals record of the choices that they did not always have."""
        return changed(self, "debias", "norm", "keep_aspect")

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return encoder_info(self.name).patch

    @property
    def input_size(self) -> int:
        """``img_size``, or the encoder's default."""
        return self.img_size or encoder_input_size(self.name)

    @property
    def context_ratio(self) -> float:
        """The context around references that suits the encoder."""
        return default_context_ratio(self.name)


@dataclass
class MemoryBankCfg(Checked):
    """Checks of the memory bank's size.

    Attributes:
        length: References per class at most. Default: as many as the reference set has.
        length_negative: Negative references per class at most. Default: all.
        category_num: The number of classes, to be checked.
    """

    length: Positive | None = None
    length_negative: Positive | None = None
    category_num: Positive | None = None


@dataclass
class VisualizationCfg(Checked):
    """Pictures of the test stage.

    Attributes:
        online_vis: Draw each target, ground truth on the left and predictions on the right.
        vis_thr: The lowest score that is drawn.
        imgs_path: Folder of the images to draw on. Default: ``dataset_cfgs.test.root``.
    """

    online_vis: bool = False
    vis_thr: Fraction = 0.5
    imgs_path: str | None = None


@dataclass
class ModelCfg(Checked):
    """The networks and the method's numbers.

    Attributes:
        sam2_cfg_file: ``sam2_hiera_{t,s,b+,l}``, ``sam2.1_hiera_{t,s,b+,l}``, ``sam2_nano``, or a proposer of your own
            (docs/extending.md).
        sam2_ckpt_path: Checkpoint of that SAM 2. Default: its official file in ``checkpoints/``.
        encoder_ckpt_path: Checkpoint of the encoder. Default: its official file in ``checkpoints/`` or
            ``checkpoints/dinov2/``.
        proposals: What proposes masks: ``grid``, a file of boxes or masks, or a list of these (docs/proposals.md).
        proposals_per_image: Of a file, the best proposals of an image that are kept.
        sam2_infer_cfgs: See below.
        encoder_cfg: See below.
        memory_bank_cfg: See below.
        test: See below.
        dataset_name: The name of the target set in ``metrics.json`` and in the report.
        exp_folder: With ``test.online_vis``, the folder of the pictures, ``results_analysis/DATASET_NAME/FILE_NAME`` in
            it. Default: ``pictures/IMAGE_ID.jpg`` next to the results.
    """

    sam2_cfg_file: str = "sam2_hiera_l"
    sam2_ckpt_path: str | None = None
    encoder_ckpt_path: str | None = None
    proposals: list[str] | str = "grid"
    proposals_per_image: Positive = PROPOSALS_PER_IMAGE
    sam2_infer_cfgs: StageSettings = field(default_factory=StageSettings)
    encoder_cfg: EncoderCfg = field(default_factory=EncoderCfg)
    memory_bank_cfg: MemoryBankCfg = field(default_factory=MemoryBankCfg)
    test: VisualizationCfg = field(default_factory=VisualizationCfg)
    dataset_name: str | None = None
    exp_folder: str | None = None

    @property
    def sam2_checkpoint(self) -> Path:
        """``sam2_ckpt_path``, or the official file of ``sam2_cfg_file``."""
        return Path(self.sam2_ckpt_path or default_checkpoint(self.sam2_cfg_file))

    @property
    def encoder_checkpoint(self) -> Path:
        """``encoder_ckpt_path``, or the official file of ``encoder_cfg.name``."""
        return Path(self.encoder_ckpt_path or default_checkpoint(self.encoder_cfg.name))

    def check_networks(self, networks: Collection[str]) -> None:
        """Check that the networks among "sam2" and "encoder" have known names, and that their checkpoints exist."""
        checkpoints = []
        if "sam2" in networks:
            check_sam2_name(self.sam2_cfg_file)
            checkpoints.append(self.sam2_checkpoint)
        if "encoder" in networks:
            check_name(self.encoder_cfg.name, list(ENCODER_NAMES.values()))
            checkpoints.append(self.encoder_checkpoint)
        check_exist(*checkpoints, otherwise=OR_NANO)


@dataclass
class DatasetCfg(Checked):
    """A data set in COCO's format, and the classes taken from it.

    Attributes:
        root: Folder of the images.
        json_file: COCO annotation file.
        class_split: A class split of the paper (``data/class_splits.json``), ``coco``, ``lvis``, or
            ``lvis_{rare,common,frequent}``. Default: all classes.
        cat_names: The classes by name, as a list or separated by commas, where no ``class_split`` is given.
        name: Kept for compatibility: the old name of ``protocol``.
        image_size: Kept for compatibility; checked where it is given.
    """

    root: str = ""
    json_file: str = ""
    class_split: str | None = None
    cat_names: ClassNames | str | None = None
    name: Protocol | None = None
    image_size: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split(self.class_split)


@dataclass
class ReferenceDatasetCfg(DatasetCfg):
    """The reference instances of stage 1.

    Attributes:
        memory_pkl: The reference set, JSON or pickle.
        memory_length: References per class taken from the reference set. Default: ``memory_bank_cfg.length``, or all.
        context_ratio: The crop's side is the box's longer side times one plus this. Default: 0.2, or 4 for
            ``dinov2_nano``.
        blur_ksize: Blur the images by a Gaussian of this many pixels, made odd, before they are cropped.
        reference_view: What the encoder sees of a reference: its ``crop``, or the whole ``image``.
    """

    memory_pkl: str = ""
    memory_length: Positive | None = None
    context_ratio: ContextRatio | None = None
    blur_ksize: Annotated[int, Range(0, LARGEST_SIZE)] = 0
    reference_view: Literal["crop", "image"] = "crop"


@dataclass
class TargetDatasetCfg(DatasetCfg):
    """The target images of stage 3.

    Attributes:
        protocol: ``coco``, ``voc``, ``lvis`` or ``semantic`` (docs/benchmarks.md); or your own (docs/extending.md).
        semantic_threshold: With ``semantic``, the lowest score of an instance that counts.
    """

    protocol: Protocol = "coco"
    semantic_threshold: Fraction = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.protocol = self.name or self.protocol


@dataclass
class SupportDatasetCfg(DatasetCfg):
    """The images in which false positives are looked for, in the mode test_support.

    Without a ``json_file``, these are the images of the memory's references, in the files of ``fill_memory``.
    """


@dataclass
class DatasetCfgs:
    """One data set per stage.

    Attributes:
        fill_memory: The references.
        support: The images in which negative references are looked for.
        test: The targets.
    """

    fill_memory: ReferenceDatasetCfg = field(default_factory=ReferenceDatasetCfg)
    support: SupportDatasetCfg = field(default_factory=SupportDatasetCfg)
    test: TargetDatasetCfg = field(default_factory=TargetDatasetCfg)


@dataclass
class DataLoadCfgs(Checked):
    """How images are loaded.

    Attributes:
        workers: Threads per device that load images; 0 loads them in the main thread.
    """

    workers: NonNegative = 4


@dataclass
class RunOptions(Checked):
    """Options of a run of a stage, besides its configuration.

    Attributes:
        ckpt_path: Memory to read (all but fill_memory).
        out_path: Memory to write (fill_memory..., postprocess_memory...), or folder (vis_memory).
        export_result: COCO results to write (test). Default: results.json in the logger's folder.
        out_neg_json: Annotations of negative references: test_support writes, fill_memory_neg reads them.
        out_neg_pkl: Their reference set, JSON or pickle, likewise.
        out_support_res: COCO results to write, JSON (test_support). Default: none.
        n_shot: Sets memory_bank_cfg.length and memory_length.
        coco_semantic_split: Sets both class splits to this fold of COCO-20i, and the protocol to semantic.
        seed: Seeds everything; recorded in metrics.json.
        on_bad_image: What to do with a target image that cannot be read.
        max_bad: Stop if more images than this are skipped.
        size_mismatch: What to do with an image of another size than the annotation file states: stop (or with
            --on_bad_image skip, skip it), or rescale its annotations.
    """

    ckpt_path: str | None = None
    out_path: str | None = None
    export_result: str | None = None
    out_neg_json: str | None = None
    out_neg_pkl: str | None = None
    out_support_res: str | None = None
    n_shot: Positive | None = None
    coco_semantic_split: Annotated[int, Range(1, 4)] | None = None
    seed: Seed | None = None
    on_bad_image: Literal["stop", "skip"] = "stop"
    max_bad: NonNegative | None = None
    size_mismatch: Literal["stop", "rescale"] = "stop"

    def folder(self, test_mode: str, save_dir: str) -> Path:
        """The folder of the record of a stage: that of its output, or the logger's."""
        written = {"test": self.export_result, "test_support": self.out_neg_json}.get(test_mode, self.out_path)
        return Path(written).parent if written else Path(save_dir)


TestMode = Literal[
    "fill_memory",
    "postprocess_memory",
    "vis_memory",
    "test",
    "test_support",
    "fill_memory_neg",
    "postprocess_memory_neg",
]

#: The networks that the stages build; the others build none.
NETWORKS: dict[str, Collection[str]] = {
    **dict.fromkeys(("fill_memory", "vis_memory", "fill_memory_neg"), ("encoder",)),
    **dict.fromkeys(("test", "test_support"), ("sam2", "encoder")),
}

#: What a message about missing checkpoints suggests as well.
OR_NANO = (
    "; or try the small networks that ship with this package: sam2_cfg_file sam2_nano, encoder_cfg.name dinov2_nano"
)

#: The arguments of the LightningModule, ``model.init_args`` in a configuration -> their types.
STAGE_KEYS: dict[str, Any] = {
    "test_mode": TestMode,
    "model_cfg": ModelCfg,
    "dataset_cfgs": DatasetCfgs,
    "data_load_cfgs": DataLoadCfgs,
    "cache_dir": str | None,
    "compile": bool,
    "compile_decoder": bool,
}

#: The precisions of Lightning's Trainer that the networks run in, as it calls them now and has called them. In the
#: others some layers get two types of numbers and fail.
PRECISIONS = {"32-true": ("32",), "16-mixed": ("16",), "bf16-mixed": ("bf16",)}


def check_precision(name: str, value: object) -> None:
    """Check that the networks can run in a precision.

    Args:
        name: What the precision is called, for the message.
        value: A value of ``Trainer(precision=...)``; None is Lightning's default.
    """
    if value is not None and not any(str(value) in (new, *old) for new, old in PRECISIONS.items()):
        raise UserError(f"{name} {value} is not supported: choose one of {', '.join(PRECISIONS)}")


def configuration_keys() -> dict[str, Any]:
    """The keys of a configuration, nested as in YAML: a dict where a key holds further keys, else its type hint."""

    def keys_of(hint: Any) -> Any:
        if not is_dataclass(hint):
            return hint
        hints = get_type_hints(hint, include_extras=True)
        return {PUBLISHED_NAMES.get(key.name, key.name): keys_of(hints[key.name]) for key in fields(hint)}

    return {name: keys_of(hint) for name, hint in STAGE_KEYS.items()}

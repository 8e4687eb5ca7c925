"""The typed configuration of the stages: what ``configs/*.yaml`` and ``--model.init_args.*`` may contain.

The keys are those of the paper's code, and the defaults are the paper's numbers, which never change between data sets.
``scripts/config_table.py --write`` makes the table of keys in docs/configuration.md from the docstrings below.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from no_time_to_train.errors import UserError
from no_time_to_train.method.settings import (
    ClassesPerMask,
    ContextRatio,
    MergeExponent,
    Merging,
    PointsPerSide,
    Prompts,
    PromptThreshold,
    Score,
    Settings,
    Suppression,
    TileOverlap,
    Tiles,
    check_prototype,
)
from no_time_to_train.networks.registry import (
    check_encoder_sizes,
    default_checkpoint,
    default_context_ratio,
    encoder_input_size,
)
from no_time_to_train.ranges import Fraction, NonNegative, Positive, Range, Seed, check_fields

Protocol = Literal["coco", "voc", "lvis", "semantic"]

#: The largest side of the encoder's input in pixels: 65,536 patches of 16, which no attention of today can take.
LARGEST_SIZE = 4096


@dataclass
class Sam2InferCfg:
    """How masks are proposed, classified, suppressed and merged.

    Attributes:
        points_per_side: Point prompts per side of the square grid.
        testing_point_bs: Prompts decoded at once. Affects speed and memory only, never results.
        iou_thr: Proposals with a predicted IoU at or below this are dropped.
        nms_thr: Box IoU above which non-maximum suppression drops the lower-ranked proposal of a class.
        num_out_instance: Instances returned per image at most.
        kmeans_k: k-means centers per class in the pictures of ``vis_memory``.
        n_pca_components: Principal components per class in the pictures of ``vis_memory``.
        cls_num_per_mask: Classes that one proposal may be assigned to; -1 means all of them.
        with_negative_refs: Whether negative references lower scores; ``true`` is an error where the memory has none.
            Default: where the memory has some.
        negative_score_thr: The lowest score of a false positive that ``test_support`` takes as a negative reference.
        score: ``cosine`` is the similarity to the class, as in the paper; ``cosine_iou`` is that times predicted IoU
            (docs/beyond_the_paper.md).
        suppression: ``nms`` drops similar boxes of a class, as in the paper; ``soft_nms`` lowers their scores instead;
            ``none`` keeps all.
        merging: ``soft`` is the paper's soft merging; ``diffusion`` is the graph diffusion of FSOD-VFM.
        merge_exponent: Exponent of the share of a mask that better masks leave uncovered; 0 merges nothing.
        prompts: ``grid`` decodes every point of the grid, as in the paper; ``guided`` only points whose surroundings
            resemble a class of the memory (docs/speed.md).
        prompt_threshold: With ``guided``, the lowest similarity of a point, from -1 (all points) to 1.
        prompt_budget: With ``guided``, the largest share of the grid's points. Doubled for two classes or more.
        tiles: N: the networks see the image as a whole and N x N overlapping tiles of it, for small objects
            (docs/beyond_the_paper.md). 1 means the whole image only, as in the paper.
        tile_overlap: The share of a tile's side that it has in common with the next one.
        prototype: Kept for compatibility; only ``mean``.
    """

    points_per_side: PointsPerSide = 32
    testing_point_bs: Positive = 64
    iou_thr: Fraction = 0.4
    nms_thr: Fraction = 0.5
    num_out_instance: Positive = 100
    kmeans_k: Positive = 4
    n_pca_components: Positive = 3
    cls_num_per_mask: ClassesPerMask = 1
    with_negative_refs: bool | None = None
    negative_score_thr: Fraction = 0.0
    score: Score = "cosine"
    suppression: Suppression = "nms"
    merging: Merging = "soft"
    merge_exponent: MergeExponent = 0.5
    prompts: Prompts = "grid"
    prompt_threshold: PromptThreshold = 0.0
    prompt_budget: Fraction = 0.15
    tiles: Tiles = 1
    tile_overlap: TileOverlap = 0.2
    prototype: str = "mean"

    def __post_init__(self) -> None:
        check_fields(self)
        check_prototype(self.prototype)

    def settings(self) -> Settings:
        """The numbers of the method, under the names that the method gives them."""
        return Settings(
            points_per_side=self.points_per_side,
            points_per_batch=self.testing_point_bs,
            pred_iou_thresh=self.iou_thr,
            box_nms_thresh=self.nms_thr,
            max_instances=self.num_out_instance,
            classes_per_mask=self.cls_num_per_mask,
            score=self.score,
            suppression=self.suppression,
            merging=self.merging,
            merge_exponent=self.merge_exponent,
            prompts=self.prompts,
            prompt_threshold=self.prompt_threshold,
            prompt_budget=self.prompt_budget,
            tiles=self.tiles,
            tile_overlap=self.tile_overlap,
        )


@dataclass
class EncoderCfg:
    """The encoder that describes masks.

    Attributes:
        name: ``dinov2_{small,base,large,giant}``, each also with ``_reg`` (registers), or ``dinov2_nano``; DINOv3,
            PE-Spatial, CLIP, TIPSv2, and any vision transformer of timm as ``timm:NAME`` (docs/encoders.md).
        img_size: Side of the encoder's square input in pixels, a multiple of the side of its patches. Default: 518, or
            336 for ``dinov2_nano``; 592 for DINOv3; for others the size that they were trained with.
        patch_size: Kept for compatibility; checked where it is given.
        debias: N: the N directions in which the tokens of a blank image differ most are removed from all tokens, as in
            INSID3, because they only encode positions (docs/encoders.md). 0 removes none, as in the paper.
    """

    name: str = "dinov2_large"
    img_size: Annotated[int, Range(1, LARGEST_SIZE)] | None = None
    patch_size: Positive | None = None
    debias: NonNegative = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_encoder_sizes(self.name, self.img_size, self.patch_size)

    @property
    def input_size(self) -> int:
        """``img_size``, or the encoder's default."""
        return self.img_size or encoder_input_size(self.name)

    @property
    def context_ratio(self) -> float:
        """The context around references that suits the encoder."""
        return default_context_ratio(self.name)


@dataclass
class MemoryBankCfg:
    """Checks of the memory bank's size.

    Attributes:
        length: Shots per class at most; also taken from the reference set where ``memory_length`` is not given.
            Default: as many as the reference set has.
        length_negative: Negative references per class at most, in ``test_support`` and ``fill_memory_neg``. Default:
            all.
        category_num: The number of classes, which is checked. Default: not checked.
    """

    length: Positive | None = None
    length_negative: Positive | None = None
    category_num: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class VisualizationCfg:
    """Pictures of the test stage.

    Attributes:
        online_vis: Draw each target, ground truth on the left and predictions on the right.
        vis_thr: The lowest score that is drawn.
        imgs_path: Folder of the images to draw on. Default: ``dataset_cfgs.test.root``.
    """

    online_vis: bool = False
    vis_thr: Fraction = 0.5
    imgs_path: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class ModelCfg:
    """The networks and the method's numbers.

    Attributes:
        sam2_cfg_file: ``sam2_hiera_{t,s,b+,l}``, ``sam2.1_hiera_{t,s,b+,l}`` or ``sam2_nano``, with or without
            ``.yaml``.
        sam2_ckpt_path: Checkpoint of that SAM 2. Default: its official file in ``checkpoints/``.
        encoder_ckpt_path: Checkpoint of the encoder. Default: its official file in ``checkpoints/`` or
            ``checkpoints/dinov2/``.
        sam2_infer_cfgs: See below.
        encoder_cfg: See below.
        memory_bank_cfg: See below.
        test: See below.
        dataset_name: The name of the target set in ``metrics.json`` and in the report. A class split's name must be
            the split of the targets.
        exp_folder: With ``test.online_vis``, the folder of the pictures, which are called as in the authors' code:
            ``results_analysis/DATASET_NAME/FILE_NAME`` in it. Default: ``pictures/IMAGE_ID.jpg`` next to the results.
    """

    sam2_cfg_file: str = "sam2_hiera_l"
    sam2_ckpt_path: str | None = None
    encoder_ckpt_path: str | None = None
    sam2_infer_cfgs: Sam2InferCfg = field(default_factory=Sam2InferCfg)
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


@dataclass
class DatasetCfg:
    """A data set in COCO's format, and the classes taken from it.

    Attributes:
        root: Folder of the images.
        json_file: COCO annotation file.
        class_split: A class split of the paper (``data/class_splits.json``), ``coco``, ``lvis``, or ``lvis_rare``,
            ``lvis_common`` or ``lvis_frequent``. Default: all classes.
        cat_names: The classes by name, as a list or separated by commas. Where ``class_split`` is given, too, it is
            used.
        name: Kept for compatibility: the old name of ``protocol``.
    """

    root: str = ""
    json_file: str = ""
    class_split: str | None = None
    cat_names: list[str] | str | None = None
    name: Protocol | None = None


@dataclass
class ReferenceDatasetCfg(DatasetCfg):
    """The reference instances of stage 1.

    Attributes:
        memory_pkl: The reference set, JSON or pickle.
        memory_length: Shots per class taken from the reference set; a class with fewer is used with those. Default:
            ``memory_bank_cfg.length``, or all.
        context_ratio: The crop's side is the box's longer side times one plus this. Default: 0.2, or 4 for
            ``dinov2_nano``.
        image_size: Kept for compatibility; crops have the size of the encoder's input.
    """

    memory_pkl: str = ""
    memory_length: Positive | None = None
    context_ratio: ContextRatio | None = None
    image_size: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass
class TargetDatasetCfg(DatasetCfg):
    """The target images of stage 3.

    Attributes:
        protocol: How results are scored: ``coco``, ``voc``, ``lvis`` or ``semantic`` (docs/benchmarks.md).
        semantic_threshold: With ``semantic``, the lowest score of an instance that counts.
        image_size: Kept for compatibility; images are resized to the size of SAM 2's input.
    """

    protocol: Protocol = "coco"
    semantic_threshold: Fraction = 0.5
    image_size: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        self.protocol = self.name or self.protocol


@dataclass
class SupportDatasetCfg(DatasetCfg):
    """The images in which false positives are looked for, in the mode test_support.

    Without a ``json_file``, these are the images of the memory's references, in the files of ``fill_memory``.

    Attributes:
        image_size: Kept for compatibility; images are resized to the size of SAM 2's input.
    """

    image_size: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)


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
class DataLoadCfgs:
    """How images are loaded.

    Attributes:
        workers: Processes per device that load images; 0 loads them in the main process.
    """

    workers: NonNegative = 4

    def __post_init__(self) -> None:
        check_fields(self)


#: The arguments of the LightningModule, ``model.init_args`` in a configuration -> the dataclass of their keys.
STAGE_KEYS: dict[str, type[Any] | None] = {
    "test_mode": None,
    "model_cfg": ModelCfg,
    "dataset_cfgs": DatasetCfgs,
    "data_load_cfgs": DataLoadCfgs,
    "cache_dir": None,
    "compile": None,
    "compile_decoder": None,
}

#: The precisions of Lightning's Trainer that the networks run in, as it calls them now and has called them. In the
#: others some layers get two types of numbers and fail.
PRECISIONS = {"32-true": ("32",), "16-mixed": ("16",), "bf16-mixed": ("bf16",)}

#: Options of a run besides the keys of its configuration -> their types (documented in ``commands/test.py``).
RUN_OPTIONS: dict[str, Any] = {
    "out_path": str | None,
    "export_result": str | None,
    "out_neg_json": str | None,
    "out_neg_pkl": str | None,
    "out_support_res": str | None,
    "n_shot": Positive | None,
    "coco_semantic_split": Annotated[int, Range(1, 4)] | None,
    "seed": Seed | None,
    "on_bad_image": Literal["stop", "skip"],
    "max_bad": NonNegative | None,
    "size_mismatch": Literal["stop", "rescale"],
}


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

    def keys_of(cls: type[Any]) -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=True)
        return {
            key.name: keys_of(hints[key.name]) if is_dataclass(hints[key.name]) else hints[key.name]
            for key in fields(cls)
        }

    return {name: cls and keys_of(cls) for name, cls in STAGE_KEYS.items()}

"""The typed configuration: what ``configs/*.yaml`` and ``--model.init_args.*`` may say, and nothing else.

Defaults are the paper's (METHOD.md): they never change between data sets.
"""

from dataclasses import dataclass, field
from typing import Literal

from no_time_to_train.networks.download import default_checkpoint


@dataclass
class Sam2InferCfg:
    """How proposals are made, matched and merged.

    Attributes:
        points_per_side: the point prompts form a grid of this many points a side.
        testing_point_bs: prompts decoded at once; any number gives the same result.
        iou_thr: proposals need a predicted IoU above this.
        nms_thr: IoU of boxes above which the lower-ranked proposal of the same class is dropped.
        num_out_instance: instances an image at most.
        kmeans_k: k-means centres of a class, for pictures of the memory.
        n_pca_components: principal components of a class, for pictures of the memory.
        cls_num_per_mask: classes that one proposal may be given; -1 means all.
    """

    points_per_side: int = 32
    testing_point_bs: int = 64
    iou_thr: float = 0.4
    nms_thr: float = 0.5
    num_out_instance: int = 100
    kmeans_k: int = 4
    n_pca_components: int = 3
    cls_num_per_mask: int = 1


@dataclass
class EncoderCfg:
    """The DINOv2 that describes masks.

    Attributes:
        name: a name of ``models.DINOV2_MODELS`` or ``dinov2_nano``.
        img_size: side of the encoder's square input, in pixels.
        patch_size: side of a patch, in pixels: 14.
    """

    name: str = "dinov2_large"
    img_size: int = 518
    patch_size: int = 14


@dataclass
class MemoryBankCfg:
    """The size of the memory bank.

    Attributes:
        length: shots a class that the bank has room for; None: as many as the reference set gives.
        category_num: number of classes, checked against the classes chosen; None: not checked.
    """

    length: int | None = None
    category_num: int | None = None


@dataclass
class VisualisationCfg:
    """Pictures of the test stage.

    Attributes:
        online_vis: draw each target, ground truth left and predictions right.
        vis_thr: lowest score that is drawn.
        imgs_path: folder the pictures are drawn from; None: the targets' root.
    """

    online_vis: bool = False
    vis_thr: float = 0.5
    imgs_path: str | None = None


@dataclass
class ModelCfg:
    """The networks and the method's numbers.

    Attributes:
        sam2_cfg_file: a name of ``models.SAM2_CONFIGS`` or ``sam2_nano``, with or without ``.yaml``.
        sam2_ckpt_path: checkpoint of that SAM 2; empty: its official file in ``checkpoints/``, or the nano network's
            own.
        encoder_ckpt_path: checkpoint of the DINOv2 that ``encoder_cfg`` names; empty: likewise.
        dataset_name: what ``metrics.json`` calls the target set; if it is a class split's name, it must be the
            target's split.
    """

    sam2_cfg_file: str = "sam2_hiera_l"
    sam2_ckpt_path: str = ""
    encoder_ckpt_path: str = ""
    sam2_infer_cfgs: Sam2InferCfg = field(default_factory=Sam2InferCfg)
    encoder_cfg: EncoderCfg = field(default_factory=EncoderCfg)
    memory_bank_cfg: MemoryBankCfg = field(default_factory=MemoryBankCfg)
    test: VisualisationCfg = field(default_factory=VisualisationCfg)
    dataset_name: str | None = None

    def __post_init__(self) -> None:
        self.sam2_ckpt_path = self.sam2_ckpt_path or str(default_checkpoint(self.sam2_cfg_file))
        self.encoder_ckpt_path = self.encoder_ckpt_path or str(default_checkpoint(self.encoder_cfg.name))


@dataclass
class DatasetCfg:
    """A COCO-format data set and the classes taken from it.

    Attributes:
        root: folder of the images.
        json_file: COCO annotation file.
        name: what kind of data set this is; that of the targets picks the protocol by which results are scored
            (``evaluation.PROTOCOLS``). The annotation file is in COCO's format whatever the kind.
        class_split: a name in ``class_splits.json``, or ``lvis_rare``, ``lvis_common`` or ``lvis_frequent``.
        cat_names: names of the classes, a list or separated by commas. Without it and ``class_split``: all.
    """

    root: str = ""
    json_file: str = ""
    name: Literal["coco", "voc", "lvis", "semantic"] = "coco"
    class_split: str | None = None
    cat_names: list[str] | str | None = None


@dataclass
class ReferenceDatasetCfg(DatasetCfg):
    """The reference instances of stage 1.

    Attributes:
        memory_pkl: reference set, JSON or pickle.
        memory_length: shots a class taken from the set, which must have them; None: the bank's length, or all.
        context_ratio: the crop's side over the box's longer side, less one.
        image_size: side that crops are resized to, in pixels: the encoder's; None: taken from it.
    """

    memory_pkl: str = ""
    memory_length: int | None = None
    context_ratio: float = 0.2
    image_size: int | None = None


@dataclass
class TargetDatasetCfg(DatasetCfg):
    """The target images of stage 3.

    Attributes:
        image_size: side that images are resized to, in pixels: SAM 2's.
        semantic_threshold: where ``name`` is "semantic", the lowest score of an instance that is painted.
    """

    image_size: int = 1024
    semantic_threshold: float = 0.5


@dataclass
class DatasetCfgs:
    """One data set a stage."""

    fill_memory: ReferenceDatasetCfg = field(default_factory=ReferenceDatasetCfg)
    test: TargetDatasetCfg = field(default_factory=TargetDatasetCfg)


@dataclass
class DataLoadCfgs:
    """Loading of images.

    Attributes:
        workers: processes that load images, per device; 0: none beside the main one.
    """

    workers: int = 4

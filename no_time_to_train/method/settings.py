"""The numbers of the method. The paper uses the same values on every data set."""

from dataclasses import InitVar, asdict, dataclass
from typing import Annotated, Any, Literal

from no_time_to_train.errors import UserError
from no_time_to_train.plugins import OwnPart, choose
from no_time_to_train.ranges import Fraction, Positive, Range, check_fields

#: The paper's context around a reference, the same on every data set.
CONTEXT_RATIO = 0.2

#: The context around a reference. More than this shows any object as a speck.
ContextRatio = Annotated[float, Range(0, 100)]

#: Proposals of an image that are kept of a file or a network: as many as FSOD-VFM's paper takes.
PROPOSALS_PER_IMAGE = 500

#: Point prompts per side of the grid. More than this lie closer than the pixels of SAM 2's mask logits.
PointsPerSide = Annotated[int, Range(1, 256)]

#: The number of classes that a proposal may be assigned to; -1 means all of them.
ClassesPerMask = Annotated[int, Range(1, also=-1)]

#: Which points of the grid are decoded: all, as in the paper, or those that resemble the memory (``beyond/guided.py``).
Prompts = Literal["grid", "guided"]

#: Tiles per side of an image; 1 means none. More would see less than a 13th of the side each.
Tiles = Annotated[int, Range(1, 16)]

#: The share of a tile's side that it has in common with the next one.
TileOverlap = Annotated[float, Range(0, 0.9)]

#: The lowest similarity of guided prompts.
PromptThreshold = Annotated[float, Range(-1, 1)]

#: The score of a candidate: its similarity to the class, as in the paper, or that times its predicted IoU.
Score = Literal["cosine", "cosine_iou"] | OwnPart

#: What happens to similar boxes of one class: the paper's NMS, Soft-NMS (``beyond/soft_nms.py``), or nothing.
Suppression = Literal["nms", "soft_nms", "none"] | OwnPart

#: How covered masks lose score: the paper's soft merging, graph diffusion (``beyond/diffusion.py``), or what the paper
#: compares with (``beyond/ablations.py``).
Merging = Literal["soft", "diffusion", "overlap", "hard"] | OwnPart

#: What ranks proposals: SAM 2's predicted IoU, as in the paper, or the score of the box that each was made from.
Quality = Literal["predicted_iou", "given"]

#: Where masks meet features, and where they are compared: see ``beyond/feature_grid.py``.
Pooling = Literal["upsampled", "grid"]
ComparedAt = Literal["image", "grid"]

#: The box of an instance: that of its mask, as in the paper, or the one that its mask was made from.
OutputBox = Literal["mask", "proposal"]

#: All of these images are read before the encoders begin.
ImagesPerBatch = Annotated[int, Range(1, 1024)]

#: The lowest similarity of a candidate.
MinSimilarity = Annotated[float, Range(-1, 1)]

#: Exponent of the share of a mask that no better mask covers; 0 merges nothing.
MergeExponent = Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class Settings:
    """How masks are proposed, classified, suppressed and merged.

    The defaults are the paper's. Attributes that SAM 2's automatic mask generator has, too, have its names. ``score``,
    ``suppression`` and ``merging`` may also be a function of your own (docs/extending.md).

    Attributes:
        points_per_side: Point prompts per side of the square grid.
        points_per_batch: Prompts that a GPU decodes at once. Default: 1,024, or as many as fit into its memory.
        images_per_batch: Images, or tiles of one, that the encoders take at once (docs/speed.md). Default: by the free
            memory of an accelerator, 8 at most; 1 on a CPU.
        pred_iou_thresh: Proposals with a predicted IoU at or below this are dropped.
        box_nms_thresh: Box IoU above which NMS drops the lower-ranked proposal of a class.
        max_instances: Instances returned per image at most.
        classes_per_mask: Classes that one proposal may be assigned to; -1 means all of them.
        score: ``cosine`` is the similarity to the class; ``cosine_iou`` is that times predicted IoU.
        suppression: ``nms`` drops similar boxes of a class; ``soft_nms`` lowers their scores instead; ``none`` keeps
            all.
        merging: ``soft`` merging; ``diffusion`` of FSOD-VFM; ``overlap``, soft merging without semantics; ``hard``,
            which gives masks that another one covers wholly the score 0.
        merge_exponent: Exponent of the share of a mask that better masks leave uncovered; 0 merges nothing.
        prompts: ``grid`` decodes every point; ``guided`` only points whose surroundings resemble a class of the memory
            (docs/speed.md).
        prompt_threshold: With ``guided``, the lowest similarity of a point, from -1 (all points) to 1.
        prompt_budget: With ``guided``, the largest share of the points. Doubled for two classes or more.
        tiles: N: for small objects, the networks see the image as a whole and N x N tiles of it
            (docs/beyond_the_paper.md). 1 means the whole image only.
        tile_overlap: The share of a tile's side that it has in common with the next one.
        multimask: Whether a prompt gives the best of SAM 2's three masks, or its single mask.
        no_mem_embed: Whether SAM 2's features get ``no_mem_embed``, as in its own image predictor.
        quality: What ranks proposals: ``predicted_iou``, or ``given``, the score of given boxes.
        pooling: ``upsampled`` averages the upsampled features inside a mask; ``grid`` those of the patches whose center
            is inside.
        compared_at: Where masks are compared for merging: at the size of the ``image``, or on the ``grid`` of patches.
        min_similarity: Candidates at or below this are dropped.
        output_box: The box of an instance: that of its ``mask``, or with given boxes the ``proposal``.
    """

    points_per_side: PointsPerSide = 32
    points_per_batch: Positive | None = None
    images_per_batch: ImagesPerBatch | None = None
    pred_iou_thresh: Fraction = 0.4
    box_nms_thresh: Fraction = 0.5
    max_instances: Positive = 100
    classes_per_mask: ClassesPerMask = 1
    score: Score = "cosine"
    suppression: Suppression = "nms"
    merging: Merging = "soft"
    merge_exponent: MergeExponent = 0.5
    prompts: Prompts = "grid"
    prompt_threshold: PromptThreshold = 0.0
    prompt_budget: Fraction = 0.15
    tiles: Tiles = 1
    tile_overlap: TileOverlap = 0.2
    multimask: bool = True
    no_mem_embed: bool = False
    quality: Quality = "predicted_iou"
    pooling: Pooling = "upsampled"
    compared_at: ComparedAt = "image"
    min_similarity: MinSimilarity = 0.0
    output_box: OutputBox = "mask"

    prototype: InitVar[str] = "mean"

    def __post_init__(self, prototype: str) -> None:
        check_fields(self)
        check_prototype(prototype)
        if self.tiles > 1 and self.compared_at == "grid":
            raise UserError("compared_at grid needs tiles 1: tiles have no grid of patches in common")


#: Settings that affect speed and memory only.
SPEED_SETTINGS = ("points_per_batch", "images_per_batch")

#: Settings that older runs and caches do not know; at their default, nothing depends on them.
NEW_SETTINGS = ("multimask", "no_mem_embed", "quality", "pooling", "compared_at", "min_similarity", "output_box")


def changed(settings: Any, *names: str) -> dict[str, Any]:
    """Those of some fields of a dataclass that are not at their default."""
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(type(settings), name)}


def as_recorded(settings: Settings) -> dict[str, Any]:
    """Settings that results depend on, as journals have them.

    The new ones are there only where they are not at their default, so that older runs resume.
    """
    values = {name: value for name, value in asdict(settings).items() if name not in NEW_SETTINGS + SPEED_SETTINGS}
    return values | changed(settings, *NEW_SETTINGS)


def check_prototype(kind: object, *known: str) -> None:
    """Refuse kinds of prototypes, some of which version 0.2 had, besides the paper's mean and the ``known`` ones."""
    if kind not in ("mean", *known):
        raise UserError(f"prototype {kind!r} was removed, because it gained nothing: leave out the key prototype")


#: A choice among the settings below, by name.
ModeName = Literal["paper", "best"] | str  # of one's own

#: The modes -> the settings in which they differ from the paper's. docs/beyond_the_paper.md says how ``best`` was
#: chosen and what it gains; ``configs/best.yaml`` has the same keys.
MODES: dict[str, dict[str, Any]] = {
    "paper": {},
    "best": {"score": "cosine_iou", "suppression": "none", "merge_exponent": 0.75},
}


def of_mode(mode: ModeName) -> dict[str, Any]:
    """The settings of a mode; those of one's own are a dictionary in a module."""
    settings = choose(MODES, mode)
    if not isinstance(settings, dict):
        raise UserError(f"mode {mode} is not a dictionary of settings")
    return settings

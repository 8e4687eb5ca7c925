"""Networks of other packages that propose boxes or masks, by name (docs/proposals.md).

Nothing here imports torch, so that a mistake in a name is found at once.
"""

import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from no_time_to_train.errors import UserError, suggest
from no_time_to_train.networks.registry import CHECKPOINTS, FOLDER, check_exist

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from no_time_to_train.method.beyond.given import Given
    from no_time_to_train_extras.proposers.exemplars import Exemplar

    #: Returns the proposals in an image, uint8 [H, W, 3] RGB.
    ProposingNetwork = Callable[[NDArray[np.uint8]], Given]

#: How networks are called on the hub, also those that a folder could be called.
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

#: What MM-Grounding-DINO looks for: whatever there is.
ANYTHING = "object."


class Known(NamedTuple):
    """A source that has a name.

    Attributes:
        module: The module that it needs.
        install: What pip installs it by.
        weights: Where its weights are by default: its name on the hub, or a file.
    """

    module: str
    install: str
    weights: str


TRANSFORMERS = "transformers", "'no-time-to-train[proposers]'"

#: Where its authors publish the code and, in the folder weights/, the checkpoint.
MOBILE_SAM = "https://github.com/ChaoningZhang/MobileSAM"

SOURCES = {
    "owlv2": Known(*TRANSFORMERS, "google/owlv2-base-patch16-ensemble"),
    "mm_grounding_dino": Known(*TRANSFORMERS, "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det"),
    "sam3": Known(*TRANSFORMERS, "facebook/sam3"),
    "sam": Known("segment_anything", "'no-time-to-train[sam]'", str(FOLDER / CHECKPOINTS["sam_vit_h"].file_name)),
    "mobile_sam": Known("mobile_sam", f"git+{MOBILE_SAM}.git", str(FOLDER / "mobile_sam.pt")),
}


def read_spec(spec: str) -> tuple[str, str]:
    """The name of a source and where its weights are: a folder or a name on the hub, or of SAM's networks a file.

    Args:
        spec: ``NAME``, or ``NAME=WEIGHTS`` with weights of one's own.
    """
    name, _, weights = spec.partition("=")
    if name not in SOURCES and Path(spec).is_file():
        raise UserError(f"proposals {spec}: a file of proposals has the form of COCO results, and a name in .json")
    if name not in SOURCES:
        raise UserError(f"no source of proposals is called {name!r}{suggest(name, ['grid', *SOURCES])}")
    module, install, default = SOURCES[name]
    if find_spec(module) is None:
        raise UserError(f"{name} needs the package {module}: pip install {install}")
    weights = weights or default
    if module == "transformers":
        if not Path(weights).is_dir() and HUB_NAME.fullmatch(weights) is None:
            raise UserError(f"folder not found: {weights}; give {name}=FOLDER, or a name on the hub, as {default} is")
    elif name == "mobile_sam" and not Path(weights).is_file():
        raise UserError(f"checkpoint not found: {weights}; get it from {MOBILE_SAM}, or give mobile_sam=FILE")
    else:
        check_exist(weights, otherwise=f"; or give {name}=FILE")
    return name, weights


def build_source(
    spec: str,
    device: "str | torch.device | None" = None,
    exemplars: "Sequence[Exemplar]" = (),
    text: str = ANYTHING,
) -> "ProposingNetwork":
    """Build a network that proposes boxes or masks in an image, uint8 [H, W, 3] RGB.

    Args:
        spec: ``NAME`` or ``NAME=WEIGHTS``, see :func:`read_spec`.
        device: Such as ``cuda:1`` or ``cpu``. Default: the GPU if there is one.
        exemplars: The positive references, which only SAM 3 needs. They may be added to its ``exemplars`` later.
        text: What MM-Grounding-DINO looks for.
    """
    name, weights = read_spec(spec)
    if name in ("sam", "mobile_sam"):
        from no_time_to_train_extras.proposers.everything import Everything, build_generator

        return Everything(build_generator(name, weights, device))
    if name == "sam3":
        from no_time_to_train_extras.proposers.exemplars import Sam3Exemplars

        return Sam3Exemplars(weights, device, exemplars)
    from no_time_to_train_extras.proposers.detectors import MMGroundingDino, Owlv2

    return Owlv2(weights, device) if name == "owlv2" else MMGroundingDino(weights, device, text)

"""The networks by the names of their checkpoints: what ``from_pretrained`` and ``--sam2``, ``--dinov2`` take."""

from pathlib import Path
from typing import NamedTuple

from no_time_to_train.data.coco import closest
from no_time_to_train.errors import UserError
from no_time_to_train.networks.build import DINOV2_NANO, SAM2_NANO
from no_time_to_train.networks.download import CHECKPOINT_OF, default_checkpoint

#: Name of a SAM 2 checkpoint -> ``sam2_cfg_file``.
SAM2_NAMES = {name: network for network, name in CHECKPOINT_OF.items() if network.startswith("sam2")}
SAM2_NAMES[SAM2_NANO] = SAM2_NANO

#: Name of a DINOv2 checkpoint -> ``encoder_cfg.name``.
DINOV2_NAMES = {name: network for network, name in CHECKPOINT_OF.items() if network.startswith("dinov2")}
DINOV2_NAMES[DINOV2_NANO] = DINOV2_NANO

#: Side of a DINOv2's input, in pixels, as it was trained.
IMG_SIZE, NANO_IMG_SIZE = 518, 336


class Network(NamedTuple):
    """A network of the configuration's name, and the file of its weights."""

    name: str
    checkpoint: Path


def find_network(name_or_path: str | Path, names: dict[str, str]) -> Network:
    """The network that a checkpoint's name, or the path of a checkpoint that keeps its official name, stands for.

    Args:
        name_or_path: such as ``sam2_hiera_large``, looked for in ``checkpoints``, or ``/models/sam2_hiera_large.pt``.
        names: ``SAM2_NAMES`` or ``DINOV2_NAMES``.

    Raises:
        UserError: no network has this name.
    """
    text = str(name_or_path)
    if text in names:
        return Network(names[text], default_checkpoint(names[text]))
    path = Path(name_or_path)
    stem = path.stem.removesuffix("_pretrain").replace("reg4", "reg")
    if path.suffix not in (".pt", ".pth", ".safetensors") or stem not in names:
        raise UserError(f"no network is called {text!r}{closest(stem, list(names))}; or give its checkpoint's path")
    return Network(names[stem], path)

"""The networks by name: their official checkpoints, where those are kept, and the shapes to build.

Nothing here imports torch, so that a command line is checked before the seconds that torch takes.
"""

import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from no_time_to_train.errors import UserError, suggest

#: Where checkpoints are kept unless the user says otherwise.
FOLDER = Path("checkpoints")


@dataclass(frozen=True)
class Checkpoint:
    """An official file of weights."""

    url: str
    description: str
    megabytes: int | None  # 10**6 bytes, rounded; None where no source states it

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


def _at(path: str, description: str, megabytes: int | None = None) -> Checkpoint:
    return Checkpoint(f"https://dl.fbaipublicfiles.com/{path}", description, megabytes)


#: Name -> checkpoint, at the addresses that the READMEs of sam2, dinov2 and segment-anything give. The READMEs state
#: no sizes; these are those of public copies of the files, and only tell the user what to expect.
CHECKPOINTS = {
    "sam2_hiera_tiny": _at("segment_anything_2/072824/sam2_hiera_tiny.pt", "SAM 2 Hiera-T", 156),
    "sam2_hiera_small": _at("segment_anything_2/072824/sam2_hiera_small.pt", "SAM 2 Hiera-S", 184),
    "sam2_hiera_base_plus": _at("segment_anything_2/072824/sam2_hiera_base_plus.pt", "SAM 2 Hiera-B+", 323),
    "sam2_hiera_large": _at("segment_anything_2/072824/sam2_hiera_large.pt", "SAM 2 Hiera-L", 898),
    "sam2.1_hiera_tiny": _at("segment_anything_2/092824/sam2.1_hiera_tiny.pt", "SAM 2.1 Hiera-T", 156),
    "sam2.1_hiera_small": _at("segment_anything_2/092824/sam2.1_hiera_small.pt", "SAM 2.1 Hiera-S", 184),
    "sam2.1_hiera_base_plus": _at("segment_anything_2/092824/sam2.1_hiera_base_plus.pt", "SAM 2.1 Hiera-B+", 324),
    "sam2.1_hiera_large": _at("segment_anything_2/092824/sam2.1_hiera_large.pt", "SAM 2.1 Hiera-L", 898),
    "dinov2_vits14": _at("dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth", "DINOv2 ViT-S/14", 88),
    "dinov2_vitb14": _at("dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth", "DINOv2 ViT-B/14", 346),
    "dinov2_vitl14": _at("dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth", "DINOv2 ViT-L/14", 1218),
    "dinov2_vitg14": _at("dinov2/dinov2_vitg14/dinov2_vitg14_pretrain.pth", "DINOv2 ViT-g/14"),
    "dinov2_vits14_reg": _at("dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth", "DINOv2 ViT-S/14, registers"),
    "dinov2_vitb14_reg": _at("dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth", "DINOv2 ViT-B/14, registers", 346),
    "dinov2_vitl14_reg": _at("dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth", "DINOv2 ViT-L/14, registers"),
    "dinov2_vitg14_reg": _at("dinov2/dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth", "DINOv2 ViT-g/14, registers"),
    "sam_vit_b": _at("segment_anything/sam_vit_b_01ec64.pth", "SAM ViT-B", 375),
    "sam_vit_l": _at("segment_anything/sam_vit_l_0b3195.pth", "SAM ViT-L", 1250),
    "sam_vit_h": _at("segment_anything/sam_vit_h_4b8939.pth", "SAM ViT-H", 2565),
}

#: A network's name in the configuration -> its official checkpoint's name here.
CHECKPOINT_OF = {
    **{
        f"{family}_hiera_{size}": f"{family}_hiera_{word}"
        for family in ("sam2", "sam2.1")
        for size, word in (("t", "tiny"), ("s", "small"), ("b+", "base_plus"), ("l", "large"))
    },
    **{
        f"dinov2_{size}{registers}": f"dinov2_vit{size[0]}14{registers}"
        for size in ("small", "base", "large", "giant")
        for registers in ("", "_reg")
    },
}


def default_checkpoint(network: str) -> Path:
    """Where a network's weights are unless told otherwise: in ``checkpoints/``, or in this package for a nano network.

    Args:
        network: its name in the configuration, ``sam2_hiera_l`` or ``dinov2_large`` say. One that does not exist gets a
            path that does not exist: building the network complains.
    """
    network = network.removesuffix(".yaml")
    if network in CHECKPOINT_OF:
        return FOLDER / CHECKPOINTS[CHECKPOINT_OF[network]].file_name
    return Path(str(files("no_time_to_train.networks") / "nano" / f"{network}.safetensors"))


def list_checkpoints() -> str:
    """A table of what can be downloaded, one checkpoint a line: name, size in MB (10**6 bytes) if known, and kind."""
    rows = [("NAME", "SIZE", "WHAT IT IS")]
    for name, checkpoint in CHECKPOINTS.items():
        size = f"{checkpoint.megabytes} MB" if checkpoint.megabytes else "-"
        rows.append((name, size, checkpoint.description))
    return "\n".join(f"{name:<24}{size:>8}  {description}" for name, size, description in rows)


def download_command(path: str | Path) -> str | None:
    """The command that puts the official checkpoint ``path`` in its place; None if its file name is not official."""
    path = Path(path)
    for name, checkpoint in CHECKPOINTS.items():
        if checkpoint.file_name == path.name:
            folder = [] if path.parent == FOLDER else ["--folder", str(path.parent)]
            return shlex.join(["no-time-to-train", "download", name, *folder])
    return None


#: ``sam2_cfg_file`` -> config of the sam2 package that holds the network's shape.
SAM2_CONFIGS = {
    f"{family}_hiera_{size}": f"configs/{family}/{family}_hiera_{size}.yaml"
    for family in ("sam2", "sam2.1")
    for size in ("t", "s", "b+", "l")
}

#: The networks that ship with this package, trained on drawn scenes by scripts/train_nano.py.
SAM2_NANO = "sam2_nano"
DINOV2_NANO = "dinov2_nano"

#: The nano ViT's shape: DINOv2's, only narrower, shallower, and made for a smaller input.
DINOV2_NANO_SHAPE: dict[str, Any] = {
    "patch_size": 14,
    "embed_dim": 192,
    "depth": 4,
    "num_heads": 3,
    "init_values": 0.2,
}

#: ``encoder_cfg.name`` -> timm's name of the same network. timm's DINOv2 equals the published encoder to 1e-6.
DINOV2_MODELS = {
    f"dinov2_{size}{'_reg' if registers else ''}": f"vit_{size}_patch14_{registers}dinov2"
    for size in ("small", "base", "large", "giant")
    for registers in ("", "reg4_")
}

PATCH_SIZE = 14  # of every DINOv2, in pixels

#: Name of a SAM 2 checkpoint -> ``sam2_cfg_file``.
SAM2_NAMES = {name: network for network, name in CHECKPOINT_OF.items() if network.startswith("sam2")}
SAM2_NAMES[SAM2_NANO] = SAM2_NANO

#: Name of a DINOv2 checkpoint -> ``encoder_cfg.name``.
DINOV2_NAMES = {name: network for network, name in CHECKPOINT_OF.items() if network.startswith("dinov2")}
DINOV2_NAMES[DINOV2_NANO] = DINOV2_NANO

#: Side of a DINOv2's square input in pixels, as it was trained.
IMG_SIZE, NANO_IMG_SIZE = 518, 336

#: Side of a SAM 2's square input in pixels.
SAM2_SIZE, NANO_SAM2_SIZE = 1024, 256


def sam2_input_size(sam2_cfg_file: str) -> int:
    """The side of a SAM 2's square input in pixels."""
    return NANO_SAM2_SIZE if sam2_cfg_file.removesuffix(".yaml") == SAM2_NANO else SAM2_SIZE


def encoder_input_size(name: str) -> int:
    """The side of an encoder's square input, in pixels, as it was trained."""
    return NANO_IMG_SIZE if name == DINOV2_NANO else IMG_SIZE


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
        raise UserError(f"no network is called {text!r}{suggest(stem, names)}; or give its checkpoint's path")
    return Network(names[stem], path)

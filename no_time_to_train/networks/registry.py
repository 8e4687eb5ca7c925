"""The networks by name: their configurations, official checkpoints and input sizes.

This module does not import torch, so that a command line is checked before torch is loaded, which takes seconds.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from no_time_to_train.errors import UserError, suggest
from no_time_to_train.files import is_file, read_json
from no_time_to_train.method.settings import CONTEXT_RATIO, Prompts
from no_time_to_train.networks.encoders import DINOV2, DINOV2_NANO, ENCODERS, TIMM, EncoderInfo, info_of, where_to_get
from no_time_to_train.plugins import find_plugin, is_plugin
from no_time_to_train.ranges import check_choice, check_type

#: What the networks compute in. bfloat16 has 8 bits of precision, and is faster where the device has instructions for
#: it.
Precision = Literal["float32", "bfloat16", "tf32"]

#: The small SAM 2 that ships with this package (see nano/MODEL_CARD.md). Network and checkpoint have the same name.
SAM2_NANO = "sam2_nano"

#: Checkpoint name -> network name (``sam2_cfg_file``), which is also the name of a configuration of the sam2 package.
SAM2_NAMES = {
    **{
        f"{family}_hiera_{word}": f"{family}_hiera_{letter}"
        for family in ("sam2", "sam2.1")
        for word, letter in (("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l"))
    },
    SAM2_NANO: SAM2_NANO,
}

#: Checkpoint name -> network name (``encoder_cfg.name``) of every DINOv2.
DINOV2_NAMES = {
    **{
        f"dinov2_vit{size[0]}14{registers}": f"dinov2_{size}{registers}"
        for size in ("small", "base", "large", "giant")
        for registers in ("", "_reg")
    },
    DINOV2_NANO: DINOV2_NANO,
}

#: Checkpoint name -> network name of every encoder that has a name. Those that are no DINOv2 have one name for both.
ENCODER_NAMES = {**DINOV2_NAMES, **{name: name for name in ENCODERS}}

#: Network name -> checkpoint name.
CHECKPOINT_OF = {network: name for names in (SAM2_NAMES, ENCODER_NAMES) for name, network in names.items()}


@dataclass(frozen=True)
class Checkpoint:
    """An official file of weights.

    Attributes:
        description: Which network it belongs to, for people.
        megabytes: Its size in units of 10**6 bytes, rounded; None where it is not known.
        size: In bytes, and
        sha256: the hash of the file in hexadecimal digits, where several independent public copies agree on both.
    """

    url: str
    description: str
    megabytes: int | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The name that its authors gave the file."""
        return self.url.rpartition("/")[2]


#: Checkpoint name -> checkpoint. The addresses are those in the READMEs of sam2, dinov2 and segment-anything. The
#: READMEs state no sizes; the sizes here are those of public copies, and serve only to tell the user what to expect.
CHECKPOINTS = {name: Checkpoint(**one) for name, one in read_json(Path(__file__).with_name("checkpoints.json")).items()}


def list_checkpoints() -> str:
    """A table of the checkpoints that can be downloaded, one line each: name, size in MB if known, and network."""
    rows = [("NAME", "SIZE", "NETWORK")]
    for name, checkpoint in CHECKPOINTS.items():
        size = f"{checkpoint.megabytes} MB" if checkpoint.megabytes else "-"
        rows.append((name, size, checkpoint.description))
    return "\n".join(f"{name:<24}{size:>8}  {description}" for name, size, description in rows)


#: Folder of the official checkpoints, unless the user names another.
FOLDER = Path("checkpoints")

#: Folder of the nano networks' weights and configurations, inside this package.
NANO_FOLDER = Path(__file__).parent / "nano"


def default_checkpoint(network: str) -> Path:
    """Where a network's weights are by default: in ``checkpoints/``, or in this package for a nano network.

    A DINOv2 that is not there but in ``checkpoints/dinov2/``, its place in the authors' code, is found as well; of the
    other encoders, the file of timm where the official one is missing. Of an unknown name, the path does not exist.

    Args:
        network: Network name, such as ``sam2_hiera_l``, ``dinov2_large`` or ``timm:vit_small_patch16_224``, with or
            without ``.yaml``. Of a network of one's own, the file is its module's.
    """
    if is_plugin(network):
        return Path(find_plugin(network).file)
    if network.startswith(TIMM):
        return FOLDER / f"{network.removeprefix(TIMM)}.safetensors"
    if network in ENCODERS:
        info = ENCODERS[network]
        paths = [FOLDER / file for file in (info.official, info.timm_file) if file is not None]
        return next((path for path in paths if path.is_file()), paths[0])
    network = network.removesuffix(".yaml")
    official = CHECKPOINTS.get(CHECKPOINT_OF.get(network, ""))
    if official is None:
        return NANO_FOLDER / f"{network}.safetensors"
    path, theirs = FOLDER / official.file_name, FOLDER / "dinov2" / official.file_name
    return theirs if network in DINOV2 and not path.is_file() and theirs.is_file() else path


def download_command(*paths: str | Path) -> str | None:
    """The command that downloads official checkpoints to these paths: one ``download`` per folder, joined by ``&&``.

    Paths that do not have the name of an official file are left out; None if no path has one.
    """
    names = {checkpoint.file_name: name for name, checkpoint in CHECKPOINTS.items()}
    folders: dict[Path, list[str]] = {}
    for path in map(Path, paths):
        if path.name in names:
            folders.setdefault(path.parent, []).append(names[path.name])
    commands = [
        ["no-time-to-train", "download", *members, *([] if folder == FOLDER else ["--folder", str(folder)])]
        for folder, members in folders.items()
    ]
    return " && ".join(map(shlex.join, commands)) or None


def check_exist(*paths: str | Path, otherwise: str = "", command: str | None = None) -> None:
    """Check that checkpoints exist, before anything slow is imported or read.

    Args:
        otherwise: What else the user may do, for the message about official files.
        command: The command that downloads official files. Default: one that names those that are missing.
    """
    missing = list(dict.fromkeys(str(path) for path in paths if not is_file(path)))
    if missing:
        message = f"checkpoint{'s' * (len(missing) > 1)} not found: {', '.join(missing)}"
        if official := download_command(*missing):
            command = command or official
            message += f"; get {'them' if len(missing) > 1 else 'it'} with: {command}{otherwise}"
        sources = [where_to_get(Path(path).name, str(Path(path).parent)) for path in missing]
        raise UserError("; ".join([message, *filter(None, sources)]))


#: Side of a SAM 2's square input in pixels: ``image_size`` in the official and in the nano network's configuration.
SAM2_SIZE, NANO_SAM2_SIZE = 1024, 256


def encoder_input_size(name: str) -> int:
    """The default side in pixels of the square input of the encoder with this network name.

    It is the size that the network was trained with; for DINOv3, which was trained with many, the one that gives as
    many patches as DINOv2 has.
    """
    return encoder_info(name).size


def check_encoder_sizes(name: str, img_size: int | None, patch_size: int | None) -> None:
    """Check that an encoder can have an input and patches of these sides in pixels; None is not checked."""
    if img_size is None and patch_size is None:
        return
    patch = encoder_info(name).patch
    if patch_size not in (None, patch):
        raise UserError(f"patch_size is {patch_size}, but the patches of {name} are {patch} pixels wide: leave it out")
    if img_size is not None and (img_size <= 0 or img_size % patch):
        raise UserError(f"img_size must be a whole number of patches of {name} ({patch} pixels), not {img_size}")


def encoder_info(name: str) -> EncoderInfo:
    """An encoder by name. An unknown one, which is reported when it is built, counts as a DINOv2."""
    return info_of(name) or DINOV2["dinov2_large"]


def check_sam2_name(name: str) -> None:
    """Check that a SAM 2 has this network name, with or without ``.yaml``, or that it is a proposer of one's own."""
    names = SAM2_NAMES.values()
    if name.removesuffix(".yaml") not in names and not is_plugin(name):
        raise UserError(f"sam2_cfg_file: no SAM 2 model is called {name!r}; choose one of {', '.join(names)}")


def sam2_input_size(sam2_cfg_file: str) -> int:
    """The side in pixels of the square input of the SAM 2 with this network name, with or without ``.yaml``."""
    if is_plugin(sam2_cfg_file):
        return find_plugin(sam2_cfg_file).number("size")
    return NANO_SAM2_SIZE if sam2_cfg_file.removesuffix(".yaml") == SAM2_NANO else SAM2_SIZE


#: The nano DINOv2's context around a reference: unlike DINOv2, it does not recognize a pattern at four times its size.
#: With this much context, references are about as large in their crops as objects are in the targets.
NANO_CONTEXT_RATIO = 4.0


def default_context_ratio(encoder: str) -> float:
    """The default context around a reference for the encoder with this network name (``fill_memory.crop_window``)."""
    return NANO_CONTEXT_RATIO if encoder == DINOV2_NANO else CONTEXT_RATIO


class Network(NamedTuple):
    """A network and its weights.

    Attributes:
        name: Network name, as in the configuration; None where the checkpoint shows it (``checkpoints.recognize``).
        checkpoint: The file of its weights, which may not exist.
    """

    name: str | None
    checkpoint: Path


#: Endings of checkpoints.
ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def find_network(name_or_path: str | Path, names: dict[str, str]) -> Network:
    """The network that a checkpoint belongs to, given the checkpoint's name or its path.

    Args:
        name_or_path: A checkpoint name such as ``sam2_hiera_large``, whose file is in its default place; or the path of
            a checkpoint, whatever its name; or "nano" for the one that ships with this package. Of an encoder also
            ``timm:`` and the name of a vision transformer of timm; a network of one's own; and NAME=PATH, for files
            whose tensors do not show which network they belong to.
        names: The names to choose from: ``SAM2_NAMES`` or ``ENCODER_NAMES``.
    """
    check_type("a network", name_or_path, str | Path | Callable)
    if is_plugin(name_or_path):
        plugin = find_plugin(name_or_path)
        return Network(plugin, default_checkpoint(plugin))
    text, path = str(name_or_path), Path(name_or_path)
    name, given, file = text.partition("=")
    if is_plugin(name):
        return Network(find_plugin(name), Path(file))
    if name == "nano":
        name = SAM2_NANO if names is SAM2_NAMES else DINOV2_NANO
    if name in names or (name.startswith(TIMM) and names is ENCODER_NAMES):
        network = names.get(name, name)
        return Network(network, Path(file) if given else default_checkpoint(network))
    if path.suffix not in ENDINGS and len(path.parts) < 2 and not is_file(path):
        raise UserError(f"no network is called {text!r}{suggest(text, names)}; or give the path of its checkpoint")
    return Network(None, path)


#: What a message about missing checkpoints suggests, where a command has ``--nano``.
OR_NANO = '; or try the small networks that ship with this package: --nano, in Python "nano"'


class Preset(NamedTuple):
    """A choice between accuracy and speed.

    Attributes:
        sam2: The name of the checkpoint of SAM 2.
        dinov2: The name of the checkpoint of DINOv2.
        prompts: Which points of the grid are decoded.
    """

    sam2: str
    dinov2: str
    prompts: Prompts


PresetName = Literal["accurate", "balanced", "fast"]

#: The presets; ``accurate`` is the paper's choice. docs/speed.md compares their times.
PRESETS: dict[PresetName, Preset] = {
    "accurate": Preset("sam2_hiera_large", "dinov2_vitl14", "grid"),
    "balanced": Preset("sam2.1_hiera_base_plus", "dinov2_vitb14", "guided"),
    "fast": Preset("sam2.1_hiera_tiny", "dinov2_vits14", "guided"),
}


def check_prompts(sam2: str | None, prompts: Prompts) -> None:
    """Check that prompts other than the grid have SAM 2, not a proposer of one's own in its place."""
    if prompts != "grid" and is_plugin(sam2):
        raise UserError(f"prompts {prompts} need SAM 2, and {sam2} takes its place: give prompts grid")


def find_networks(
    sam2: str | Path | None = None,
    dinov2: str | Path | None = None,
    *more: str | Path,
    preset: PresetName | None = None,
    prompts: Prompts = "grid",
) -> tuple[Network, Network]:
    """Find both networks, SAM 2 and the encoder, and check that their checkpoints exist.

    Args:
        sam2: As of :func:`find_network`; or "nano" for the two networks that ship with this package. None takes the
            preset's.
        more: Further checkpoints that must exist.
        preset: A name in ``PRESETS``; None takes ``accurate``.
        prompts: What SAM 2 is to be prompted with.
    """
    check_choice("preset", preset, PresetName | None)
    chosen = PRESETS[preset or "accurate"]
    command = f"no-time-to-train download --preset {preset}" if preset and sam2 is dinov2 is None else None
    if dinov2 is None:
        dinov2 = DINOV2_NANO if isinstance(sam2, str) and sam2 == "nano" else chosen.dinov2
    found = find_network(chosen.sam2 if sam2 is None else sam2, SAM2_NAMES), find_network(dinov2, ENCODER_NAMES)
    check_prompts(found[0].name, prompts)
    check_exist(*(network.checkpoint for network in found), *more, otherwise=OR_NANO, command=command)
    return found

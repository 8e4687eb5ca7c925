"""The encoders by name: which model of timm each of them is, its input, and where its weights are.

docs/encoders.md is the page about them. This module does not import torch or timm; what only timm knows is looked up by
``timm_models``.
"""

from pathlib import Path
from typing import NamedTuple

from no_time_to_train.errors import UserError
from no_time_to_train.files import read_json
from no_time_to_train.plugins import find_plugin, is_plugin

#: What the name of an encoder that only timm knows begins with: ``timm:vit_base_patch16_224``.
TIMM = "timm:"

#: Sides of a patch of every DINOv2 and of every DINOv3, in pixels.
PATCH_SIZE, DINOV3_PATCH_SIZE = 14, 16

#: The small DINOv2 that ships with this package (see nano/MODEL_CARD.md).
DINOV2_NANO = "dinov2_nano"


class EncoderInfo(NamedTuple):
    """An encoder.

    Attributes:
        timm: The name of the model in timm, with the tag of its weights; "" for the nano DINOv2, which timm lacks.
        size: The default side of its square input in pixels.
        patch: Side of a patch in pixels.
        width: D, the width of a token.
        official: The name of the file that its authors publish; None where they publish none that can be read.
        page: Where that file is.
    """

    timm: str
    size: int
    patch: int
    width: int
    official: str | None = None
    page: str | None = None

    @property
    def timm_file(self) -> str:
        """The name in ``checkpoints/`` of the file that timm publishes, ``model.safetensors``."""
        return f"{self.timm}.safetensors"

    @property
    def timm_page(self) -> str:
        """The page of the file that timm publishes."""
        return f"https://huggingface.co/timm/{self.timm.replace('_quickgelu', '')}"  # one file for both activations


#: Network name (``encoder_cfg.name``) -> DINOv2, and the other encoders, whose names are those of the authors' code
#: where it has them. With the official weights of DINOv2, timm's features agree to 1e-6. The 592 pixels of DINOv3 are
#: 37 x 37 patches, as many as the 518 of DINOv2. OpenAI's own file of a CLIP is a program, which is not read.
DINOV2, ENCODERS = (
    {name: EncoderInfo(**one) for name, one in table.items()}
    for table in read_json(Path(__file__).with_name("encoders.json")).values()
)

#: Name of a file -> network name. It decides where tensors do not show which of two networks they belong to.
NAME_OF_FILE = {
    file: name for name, info in ENCODERS.items() for file in (info.official, info.timm_file) if file is not None
}


def info_of(name: str) -> EncoderInfo | None:
    """What is known of the encoder with a network name; None for unknown names. For ``timm:NAME``, timm is imported."""
    if is_plugin(name):
        number = find_plugin(name).number
        return EncoderInfo("", number("size"), number("patch"), number("width"))
    if not name.startswith(TIMM):
        return DINOV2.get(name) or ENCODERS.get(name)
    from no_time_to_train.networks.timm_models import measure

    timm = name.removeprefix(TIMM)
    return EncoderInfo(timm, *measure(timm))


def check_name(name: str, known: list[str]) -> None:
    """Check that an encoder has a name in ``known``, or is one of timm or of one's own."""
    if name not in known and not name.startswith(TIMM) and not is_plugin(name):
        raise UserError(
            f"encoder_cfg.name: no encoder is called {name!r}; choose one of {', '.join(known)}, or {TIMM}NAME "
            "for a vision transformer of timm"
        )


def where_to_get(file: str, folder: str) -> str | None:
    """Where to get a missing checkpoint, for a message; None for files of other networks."""
    if file not in NAME_OF_FILE:
        if folder != "checkpoints" or not file.endswith(".safetensors"):
            return None
        from no_time_to_train.networks.timm_models import hub_page

        page = hub_page(file.removesuffix(".safetensors"))
        return page and f"save model.safetensors of {page} as {folder}/{file}"
    info = ENCODERS[NAME_OF_FILE[file]]
    hub = f"save model.safetensors of {info.timm_page} as {folder}/{info.timm_file}"
    return f"get {info.official} from {info.page}, or {hub}" if info.official else hub

"""The encoders by name: which model of timm each of them is, its input, and where its weights are.

docs/encoders.md is the page about them. This module does not import torch or timm; what only timm knows is looked up by
``timm_models``.
"""

from typing import NamedTuple

from no_time_to_train.errors import UserError
from no_time_to_train.plugins import find_plugin, is_plugin

#: What the name of an encoder that only timm knows begins with: ``timm:vit_base_patch16_224``.
TIMM = "timm:"

#: Sides of a patch of every DINOv2 and of every DINOv3, in pixels.
PATCH_SIZE, DINOV3_PATCH_SIZE = 14, 16

#: The small DINOv2 that ships with this package (see nano/MODEL_CARD.md).
DINOV2_NANO = "dinov2_nano"

#: Where the weights of DINOv3 are published.
DINOV3_PAGE = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads (a form, for the DINOv3 License)"


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


def _dinov3(timm: str, width: int, official: str) -> EncoderInfo:
    """A DINOv3: 592 pixels are 37 x 37 patches, as many as the 518 pixels of DINOv2."""
    return EncoderInfo(timm, 592, DINOV3_PATCH_SIZE, width, f"{official}.pth", DINOV3_PAGE)


def _pe_spatial(size: str, name: str, patch: int, side: int, width: int) -> EncoderInfo:
    """A PE-Spatial with the name of its official file."""
    page = f"https://huggingface.co/facebook/{name}"
    return EncoderInfo(f"vit_pe_spatial_{size}_patch{patch}_{side}.fb", side, patch, width, f"{name}.pt", page)


def _clip(size: str, patch: int, side: int, width: int) -> EncoderInfo:
    """A CLIP of OpenAI. Its official file is a TorchScript program, which is not read because it could run code."""
    return EncoderInfo(f"vit_{size}_patch{patch}_clip_quickgelu_{side}.openai", side, patch, width)


#: Network name (``encoder_cfg.name``) -> DINOv2. With the official weights, timm's features agree to 1e-6.
DINOV2: dict[str, EncoderInfo] = {
    **{
        f"dinov2_{size}{suffix}": EncoderInfo(f"vit_{size}_patch14_{infix}dinov2", 518, PATCH_SIZE, width)
        for size, width in (("small", 384), ("base", 768), ("large", 1024), ("giant", 1536))
        for suffix, infix in (("", ""), ("_reg", "reg4_"))
    },
    DINOV2_NANO: EncoderInfo("", 336, PATCH_SIZE, 192),
}

#: Network name -> encoder besides DINOv2. The names are those of the authors' code where it has them.
ENCODERS: dict[str, EncoderInfo] = {
    "dinov3_small": _dinov3("vit_small_patch16_dinov3.lvd1689m", 384, "dinov3_vits16_pretrain_lvd1689m-08c60483"),
    "dinov3_small_plus": _dinov3(
        "vit_small_plus_patch16_dinov3.lvd1689m", 384, "dinov3_vits16plus_pretrain_lvd1689m-4057cbaa"
    ),
    "dinov3_base": _dinov3("vit_base_patch16_dinov3.lvd1689m", 768, "dinov3_vitb16_pretrain_lvd1689m-73cec8be"),
    "dinov3_large": _dinov3("vit_large_patch16_dinov3.lvd1689m", 1024, "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd"),
    "dinov3_huge": _dinov3(
        "vit_huge_plus_patch16_dinov3.lvd1689m", 1280, "dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5"
    ),
    "dinov3_7b": _dinov3("vit_7b_patch16_dinov3.lvd1689m", 4096, "dinov3_vit7b16_pretrain_lvd1689m-a955f4ea"),
    "dinov3_sat_large": _dinov3("vit_large_patch16_dinov3.sat493m", 1024, "dinov3_vitl16_pretrain_sat493m-eadcf0ff"),
    "dinov3_sat_7b": _dinov3("vit_7b_patch16_dinov3.sat493m", 4096, "dinov3_vit7b16_pretrain_sat493m-a6675841"),
    "PE-Spatial-T16-512": _pe_spatial("tiny", "PE-Spatial-T16-512", 16, 512, 192),
    "PE-Spatial-S16-512": _pe_spatial("small", "PE-Spatial-S16-512", 16, 512, 384),
    "PE-Spatial-B16-512": _pe_spatial("base", "PE-Spatial-B16-512", 16, 512, 768),
    "PE-Spatial-L14-448": _pe_spatial("large", "PE-Spatial-L14-448", 14, 448, 1024),
    "PE-Spatial-G14-448": _pe_spatial("gigantic", "PE-Spatial-G14-448", 14, 448, 1536),
    "clip_b32": _clip("base", 32, 224, 768),
    "clip_b16": _clip("base", 16, 224, 768),
    "clip_l14": _clip("large", 14, 224, 1024),
    "clip_l14@336px": _clip("large", 14, 336, 1024),
    **{
        f"tipsv2_{size}": EncoderInfo(f"vit_{size}_patch14_reg1_tipsv2.webli", 448, 14, width)
        for size, width in (("base", 768), ("large", 1024), ("so400m", 1152), ("giant", 1536))
    },
}

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

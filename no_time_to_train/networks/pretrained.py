"""Both networks and the method around them, from the names or paths of checkpoints."""

from pathlib import Path
from typing import Any

import torch

from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks.box_prompts import Sam2Boxes, SamBoxes, build_sam
from no_time_to_train.networks.build import build_encoder, build_proposer
from no_time_to_train.networks.checkpoints import recognize
from no_time_to_train.networks.devices import to_device
from no_time_to_train.networks.own_networks import OwnProposer
from no_time_to_train.networks.registry import ENCODER_NAMES, PRESETS, SAM2_NAMES, PresetName, find_networks


def build_pretrained(
    sam2: str | Path | None = None,
    dinov2: str | Path | None = None,
    device: str | torch.device | None = None,
    sam_checkpoint: str | Path | None = None,
    settings: Settings | None = None,
    preset: PresetName | None = None,
    debias: int = 0,
) -> tuple[Segmenter, Sam2Boxes | SamBoxes, str, Path, Path]:
    """Build the networks from their checkpoints, for ``ReferenceSegmenter.from_pretrained``.

    Returns:
        The method with an empty memory; the network that makes masks from boxes and points; the name of the encoder in
        the configuration; and the files of SAM 2's and of the encoder's weights.
    """
    more = [] if sam_checkpoint is None else [sam_checkpoint]
    proposing, encoding = find_networks(sam2, dinov2, *more, preset=preset)
    sam2_name, encoder_name = recognize(proposing, SAM2_NAMES), recognize(encoding, ENCODER_NAMES)
    settings = settings or Settings(prompts=PRESETS[preset or "accurate"].prompts)
    encoder = build_encoder(encoder_name, checkpoint=encoding.checkpoint, debias=debias)
    proposer = build_proposer(sam2_name, proposing.checkpoint, settings)
    segmenter = Segmenter(encoder, proposer, settings=settings)
    sam = build_sam(sam_checkpoint) if sam_checkpoint else None
    to_device(device, segmenter, *([] if sam is None else [sam]))
    prompts: Any = proposer  # which says that it makes no masks from boxes
    if sam is not None:
        prompts = SamBoxes(sam, str(sam_checkpoint))
    elif not isinstance(proposer, OwnProposer):
        prompts = Sam2Boxes(proposer.sam2, sam2_name)
    return segmenter, prompts, encoder_name, proposing.checkpoint, encoding.checkpoint

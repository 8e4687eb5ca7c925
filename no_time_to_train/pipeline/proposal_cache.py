"""The proposal cache: what the two networks say of a target image, kept on disk for the next reference set.

Proposals and mask vectors do not depend on the references. The run that fills a cache matches, too, from what it has
stored (vectors rounded to float16), so that a run that reads it gives the same bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.errors import UserError
from no_time_to_train.files import atomic_write, sha256
from no_time_to_train.method.matching import DescribedProposals
from no_time_to_train.method.soft_merge import PackedMasks

#: Part of every key: to be changed with what an entry holds, or with how proposals are computed.
FORMAT = "no-time-to-train proposals 1"

#: Pixels of masks that exist at once while they are encoded or decoded, a byte each.
DENSE_AT_ONCE = 2**24


@dataclass
class StoredProposals:
    """The proposals of one image as the cache keeps them.

    Attributes:
        height, width: the image's own size in pixels.
        predicted_iou: float32 [n].
        boxes: int16 [n, 4], xyxy of the regions at SAM 2's size.
        vectors: float16 [n, D].
        masks: n compressed RLEs of COCO at the image's own size.
    """

    height: int
    width: int
    predicted_iou: Tensor
    boxes: Tensor
    vectors: Tensor
    masks: list[str]

    @classmethod
    def of(cls, proposals: DescribedProposals, height: int, width: int) -> "StoredProposals":
        """Round and encode the proposals of an image of this size."""
        rows = torch.arange(len(proposals.boxes), device=proposals.boxes.device)
        masks = []
        for part in rows.split(max(DENSE_AT_ONCE // (height * width), 1)):
            for mask in proposals.masks(part).unpack():
                masks.append(rle.encode(np.asfortranarray(mask.view(np.uint8)))["counts"].decode())
        return cls(
            height,
            width,
            proposals.predicted_iou.cpu(),
            proposals.boxes.to(torch.int16).cpu(),
            proposals.vectors.half().cpu(),
            masks,
        )

    def described(self, device: torch.device) -> DescribedProposals:
        """The proposals again, on a device, but for the rounding."""
        return DescribedProposals(
            self.predicted_iou.to(device),
            self.boxes.to(device, torch.int64),
            F.normalize(self.vectors.to(device, torch.float32), dim=1),
            self.decode,
        )

    def decode(self, rows: Tensor) -> PackedMasks:
        """The masks of some of the proposals, int64 [m], a few at a time."""
        size = [self.height, self.width]
        parts = [PackedMasks.pack(np.zeros((0, *size), bool))]
        for part in rows.cpu().split(max(DENSE_AT_ONCE // (self.height * self.width), 1)):
            if len(part):
                dense = rle.decode([{"size": size, "counts": self.masks[row]} for row in part.tolist()])  # [H, W, m]
                parts.append(PackedMasks.pack(dense.transpose(2, 0, 1).view(bool)))
        return PackedMasks.join(parts)

    def to_bytes(self) -> bytes:
        """The content of an entry: safetensors, which cannot run code."""
        return safetensors.torch.save(
            {
                "size": torch.tensor([self.height, self.width]),
                "predicted_iou": self.predicted_iou,
                "boxes": self.boxes,
                "vectors": self.vectors,
                "masks": torch.frombuffer(bytearray((" ".join(self.masks) + " ").encode()), dtype=torch.uint8),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> "StoredProposals":
        tensors = safetensors.torch.load(content)
        height, width = tensors["size"].tolist()
        masks = tensors["masks"].numpy().tobytes().decode().split()
        return cls(height, width, tensors["predicted_iou"], tensors["boxes"], tensors["vectors"], masks)


class ProposalCache:
    """A folder of entries, one file an image, shared by any number of processes and runs.

    Args:
        folder: made with the first entry.
        made_with: all that the proposals depend on beside the image, as JSON values: networks, checkpoints, settings.
    """

    def __init__(self, folder: str | Path, made_with: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.made_with = json.dumps([FORMAT, made_with], sort_keys=True)

    def key(self, image: Path) -> str:
        """The name of an image file's entry, by the file's content.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            content = sha256(image)
        except OSError as error:
            raise UserError(f"image {image} cannot be read: {error.strerror}") from error
        return hashlib.sha256(f"{self.made_with}{content}".encode()).hexdigest()

    def read(self, key: str) -> StoredProposals | None:
        """An entry; None where there is none, or where the file is not, to the last bit, what :meth:`write` wrote."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        check, body = content[:32], content[32:]
        return StoredProposals.from_bytes(body) if check == _check(key, body) else None

    def write(self, key: str, proposals: StoredProposals) -> None:
        """Write an entry, whole or not at all."""
        body = proposals.to_bytes()
        with atomic_write(self._path(key)) as file:
            file.write(_check(key, body) + body)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.proposals"


def _check(key: str, body: bytes) -> bytes:
    """What stands before the body of an entry, 32 bytes."""
    return hashlib.sha256(key.encode() + body).digest()

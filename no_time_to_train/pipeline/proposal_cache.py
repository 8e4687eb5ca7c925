"""The proposal cache: what both networks say about a target image, kept on disk for the next reference set.

Proposals and mask vectors do not depend on the references; with guided prompts they do, and the prototypes are a part
of the keys. The run that fills the cache continues with what it stored (vectors rounded to float16), so that a run that
reads the cache gives the same bytes.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from no_time_to_train.data.coco import is_turned, stated_size
from no_time_to_train.data.datasets import Target, TargetDataset
from no_time_to_train.data.images import shown_size, stored_size
from no_time_to_train.data.rle import decode_crop, encode_crop
from no_time_to_train.errors import UserError
from no_time_to_train.file_hashes import remembered, sha256
from no_time_to_train.files import TEMPORARY
from no_time_to_train.method.beyond.guided import LEVEL_STEP, SEVERAL_CLASSES
from no_time_to_train.method.beyond.tiles import BORDER, FINER
from no_time_to_train.method.fast.mask_logits import MaskLogits
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.settings import Settings, changed
from no_time_to_train.networks.build import LOADED_FROM
from no_time_to_train.pipeline.entries import Entries

#: Part of every key. Change it whenever an entry's content, or the way proposals are computed, changes.
FORMAT = "no-time-to-train proposals 2"

#: Values of each tensor of a network, at least, that show how it was built.
SAMPLES = 64

#: Seconds after which a temporary file belongs to a killed run: an entry is written within one.
ABANDONED = 3600


class CacheEntry(NamedTuple):
    """The proposals of one image, on the CPU, and the image's own height and width in pixels."""

    height: int
    width: int
    proposals: DescribedProposals


def decode_masks(height: int, width: int, counts: list[str], rows: Tensor) -> Masks:
    """Some of the masks of an entry.

    Args:
        counts: The ``counts`` of each mask's compressed RLE.
        rows: int64 [m] in [0, n), the masks that are needed.
    """
    encoded = ({"size": [height, width], "counts": counts[row]} for row in rows.tolist())
    try:
        return Masks.from_crops(map(decode_crop, encoded), height, width)
    except ValueError as error:
        raise UserError(f"the cache holds a mask that no run wrote ({error}): delete its folder") from error


def proposals_depend_on(
    networks: Mapping[str, Any], settings: Settings, precision: str, prototypes: Tensor | None = None
) -> dict[str, Any]:
    """All that the proposals of an image depend on besides its pixels, as JSON values: what every cache is made with.

    Args:
        networks: What identifies the networks and how they compute, as JSON values; see :func:`hash_networks`.
        prototypes: float [C, D], which guided prompts depend on.
    """
    tiled = {"tiles": [settings.tiles, settings.tile_overlap, BORDER, FINER]}
    guided: dict[str, Any] = {}
    new = changed(settings, "multimask", "no_mem_embed", "quality", "pooling", "compared_at")
    if settings.prompts == "guided" and prototypes is not None:
        rule = [settings.prompt_threshold, settings.prompt_budget, LEVEL_STEP, SEVERAL_CLASSES]
        guided = {"guided": [hash_tensors({"prototypes": prototypes}), *rule]}
    return {
        **networks,
        "points_per_side": settings.points_per_side,
        "iou_thr": settings.pred_iou_thresh,
        "precision": precision,
        **(tiled if settings.tiles > 1 else {}),  # only then, so that older caches stay valid
        **new,
        **guided,
    }


def hash_networks(segmenter: nn.Module) -> dict[str, str]:
    """The SHA-256 of each network of a segmenter, with the directions that ``debias`` removes."""
    return {name: _hash_network(network) for name, network in segmenter.named_children()}


def _hash_network(network: nn.Module) -> str:
    """The SHA-256 of a network, remembered for its file and for samples of its tensors: these show how it was built."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    states = [vars(part).get(LOADED_FROM) for part in network.modules() if LOADED_FROM in vars(part)]
    if len(states) != 1 or states[0] is None:
        return hash_tensors(tensors)
    samples = {
        f"{name} {tuple(one.shape)}": one.flatten()[:: max(one.numel() // SAMPLES, 1)].contiguous()
        for name, one in tensors.items()
    }
    return remembered(states[0], partial(hash_tensors, tensors), hash_tensors(samples))


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors by name, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class ProposalCache:
    """A folder with one entry per image, shared by any number of processes and runs.

    Args:
        folder: Created with the first entry.
        made_with: What :func:`proposals_depend_on` returned. It is part of every key.
    """

    def __init__(self, folder: str | Path, made_with: dict[str, Any]) -> None:
        self.entries = Entries(Path(folder), ".proposals")
        self.made_with = json.dumps([FORMAT, made_with], sort_keys=True)

    def key(self, image: Path) -> str:
        """The name of the entry of an image file, which depends on the file's content and not on its name."""
        try:
            return self.key_of(sha256(image))
        except OSError as error:
            raise UserError(f"image {image} cannot be read: {error.strerror}") from error

    def key_of(self, content: str) -> str:
        """The name of the entry of an image file with this SHA-256."""
        return hashlib.sha256(f"{self.made_with}{content}".encode()).hexdigest()

    def read(self, key: str) -> CacheEntry | None:
        """An entry; None where there is none, or where the file is not exactly what :meth:`write` wrote.

        Whoever can write to the folder can forge an entry with its checksum. Such a one can make results wrong; it
        cannot run code, because safetensors holds numbers only, and masks are checked before they are decoded.
        """
        body = self.entries.read(key)
        if body is None:
            return None
        try:
            return _from_bytes(body)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError):  # forged
            return None

    def remove_leftovers(self) -> None:
        """Remove the temporary files of killed runs: those that no run can be writing any more."""
        for path in self.entries.folder.glob(f".*.{TEMPORARY}"):
            with suppress(OSError):  # another run may remove it as well
                if time.time() - path.lstat().st_mtime > ABANDONED:
                    path.unlink()

    def write(self, key: str, proposals: DescribedProposals, height: int, width: int) -> CacheEntry:
        """Write an entry atomically, and return it as :meth:`read` will."""
        body = _to_bytes(proposals, height, width)
        self.entries.write(key, body)
        return _from_bytes(body)


class CachedTargetDataset(TargetDataset):
    """Target images whose proposals are read from a cache where it has them.

    An image that is rescaled has an entry of its own per stated size.

    Args:
        images: The arguments of :class:`TargetDataset`.
    """

    def __init__(self, cache: ProposalCache, *images: Any) -> None:
        super().__init__(*images)
        self.cache = cache

    def load(self, index: int, entry: dict[str, Any]) -> Target:
        path = self.root / entry["file_name"]
        key, own = self.cache.key(path), stored_size(path)
        if is_turned(entry, *own, rescale=self.rescale):
            key, own = f"{key}-turned", shown_size(path)
        size = stated_size(path, entry, *own, rescale=self.rescale)
        if rescaled := size != own:
            key = f"{key}-{size[1]}x{size[0]}"
        if self.sources != (None,):
            name = Path(entry["file_name"]).as_posix()
            proposed = [source and source.key_of(entry["id"], name) for source in self.sources]
            key = hashlib.sha256(f"{key} {proposed}".encode()).hexdigest()
        cached = self.cache.read(key)
        if cached is None:
            target = super().load(index, entry)
            target.cache_key = key
            return target
        size = stated_size(path, entry, cached.height, cached.width)
        return Target(index, entry["id"], *size, cache_key=key, proposals=cached.proposals, rescaled=rescaled)


def _to_bytes(proposals: DescribedProposals, height: int, width: int) -> bytes:
    """The body of an entry: safetensors, which cannot run code."""
    masks = proposals.logits
    return safetensors.torch.save(
        {
            "size": torch.tensor([height, width]),
            "prompts": torch.tensor(proposals.prompts),
            "predicted_iou": proposals.predicted_iou.cpu(),
            "boxes": proposals.boxes.to(torch.int16).cpu(),
            "vectors": proposals.vectors.half().cpu(),
            **({} if proposals.given is None else {"given": proposals.given.cpu()}),
            **({} if proposals.sources is None else {"sources": proposals.sources.cpu()}),
            **({} if masks is not None and masks.tiled else {"grid": torch.tensor(proposals.grid)}),
            **(masks.to_tensors() if masks is not None and masks.tiled else _encode_masks(proposals, height, width)),
        }
    )


def _encode_masks(proposals: DescribedProposals, height: int, width: int) -> dict[str, Tensor]:
    """The masks of an image without tiles as compressed RLE."""
    made = proposals.upsampled_masks(torch.arange(len(proposals), device=proposals.boxes.device))
    masks = [encode_crop(*made.crop(index), height, width)["counts"] for index in range(len(made))]
    return {"masks": torch.frombuffer(bytearray((" ".join(masks) + " ").encode()), dtype=torch.uint8)}


def _from_bytes(body: bytes) -> CacheEntry:
    tensors = safetensors.torch.load(body)
    height, width = tensors["size"].tolist()
    masks: Callable[[Tensor], Masks]
    logits = None
    if "masks" in tensors:
        counts = tensors["masks"].numpy().tobytes().decode().split()
        masks, count = partial(decode_masks, height, width, counts), len(counts)
    else:
        masks = logits = MaskLogits.from_tensors(height, width, tensors)
        count = len(logits)
    others = [tensors.get(name) for name in ("given", "sources")]
    rows = [tensors["predicted_iou"], tensors["boxes"], tensors["vectors"], *(one for one in others if one is not None)]
    shapes = [one.shape[:1] for one in rows]
    grid = tensors.get("grid", torch.zeros(2))
    if set(map(tuple, shapes)) != {(count,)} or tensors["boxes"].shape[1:] != (4,):
        raise ValueError("the numbers of masks, boxes and vectors differ")
    proposals = DescribedProposals(
        tensors["predicted_iou"],
        tensors["boxes"].long(),
        F.normalize(tensors["vectors"].float(), dim=1),
        masks,
        int(tensors["prompts"]),
        logits,
        (int(grid[0]), int(grid[1])),
        *others,
    )
    return CacheEntry(height, width, proposals)

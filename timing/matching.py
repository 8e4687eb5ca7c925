"""Other ways of comparing proposals with references than the paper's prototypes, on drawn scenes.

``python -m timing.matching`` measures the mask AP of the ways below as ``timing.ablation`` does: the nano networks,
memories of one class and of eight, and 1, 5 and 10 shots. The networks see each scene once, and every row ranks the
same proposals.

Similarities of patches are cosines between the tokens of the target and those tokens of the references' crops that the
references' masks cover. With s(i, c) the similarity of proposal i to the prototype of class c:

- ``forward``: each patch of the proposal takes its most similar reference patch of the class; the mean over them.
- ``both``: the mean of that and of its opposite, in which each patch of a reference takes its most similar patch of the
  proposal.
- ``mutual``: the mean similarity of the pairs of patches in which each is the other's most similar one.
- ``votes``: the share of the proposal's patches whose most similar patch in the crop of a reference, surroundings
  included, lies on the reference's mask; the mean over the class's references.
- ``query``: after a first pass, the confident instances of each class in the image join its references.
- ``debias``: the N directions that encode positions are removed from all tokens (``Encoder.remove_positions``).
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.datasets import ReferenceDataset, loaded
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.demo.run_demo import POINTS_PER_SIDE, annotation_files
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.fill_memory import instance_vector, patch_weights
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.method.proposals import Candidates, DescribedProposals
from no_time_to_train.method.segmenter import classify_and_merge
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.target_image import as_float, resize_to_square
from no_time_to_train.pipeline.choose_references import read_proposals
from timing.ablation import SHOTS, Cell, Figures, Scene, ap, print_table, some_shots
from timing.drawn_scenes import segmenter_of

#: How many directions that encode positions are removed at most.
MOST_DIRECTIONS = 64

#: The ways of comparing: ``patches`` with a weight next to the prototype, ``query`` with the arguments of ``queried``,
#: ``debias``, and the method's other ``settings``.
ROWS: list[dict[str, Any]] = [
    {},
    *({"patches": name, "weight": weight} for name in ("forward", "both", "mutual", "votes") for weight in (0.3, 0.7)),
    *({"query": (floor, most, 1.0)} for floor in (0.5, 0.7) for most in (1, 3)),
    *({"debias": count} for count in (1, 4, 16, 64)),
]


@dataclass
class Tokens:
    """The patches of the references: unit tokens [M, P, D], and the share of each that the mask covers, [M, P]."""

    vectors: Tensor
    weights: Tensor

    def covered(self, reference: int) -> Tensor:
        """Whether each patch is on the mask, bool [P]; the one that is covered most where none is by half."""
        weights = self.weights[reference]
        return weights >= min(0.5, float(weights.max()))


class Target(Scene):
    """A scene with the patches of its image.

    Args:
        tokens: float [P, D], of length 1.
        grid: Patches per side.

    Attributes:
        shares: The share of each patch that each proposal covers, float [n, P].
        inside: Whether each patch is in each proposal, bool [n, P]; at least one is.
    """

    def __init__(self, image_id: int, proposals: DescribedProposals, tokens: Tensor, grid: int) -> None:
        super().__init__(image_id, proposals)
        self.tokens = tokens
        whole = torch.from_numpy(np.asarray(self.masks)).float()
        self.shares = F.interpolate(whole[:, None], (grid, grid), mode="area")[:, 0].flatten(1)
        self.inside = self.shares >= self.shares.amax(dim=1, keepdim=True).clamp(max=0.5)
        shared = cast(Any, SharedPixels(self.masks.intersections()))
        self.ready = replace(proposals, upsampled_masks=shared.__getitem__, logits=None)
        self.by_iou = proposals.predicted_iou.argsort(descending=True, stable=True)

    def candidates(self, similarity: Tensor, settings: Settings) -> Candidates:
        """The candidates with their final scores, by the similarities of the proposals to the classes, float [n, C]."""
        known = cast(Negatives, Replaced(similarity[self.by_iou].clamp(min=0)))
        prototypes = self.proposals.vectors.new_zeros(similarity.shape[1], self.proposals.vectors.shape[1])
        return classify_and_merge(self.ready, prototypes, settings, known)[0]

    def records(self, similarity: Tensor, bank: MemoryBank, settings: Settings) -> Iterator[dict[str, Any]]:
        """The COCO result records of the instances that are found."""
        found = self.candidates(similarity, settings)
        for best in found.scores.argsort(descending=True, stable=True)[: settings.max_instances].tolist():
            yield {
                "image_id": self.image_id,
                "category_id": bank.categories[int(found.classes[best])].id,
                "score": float(found.scores[best]),
                "segmentation": self.encoded[int(found.rows[best])],
            }


class SharedPixels:
    """Stands for the masks of a scene in merging, so that the pixels that they share are counted once.

    Args:
        counts: float64 [n, n], from ``Masks.intersections``.
    """

    def __init__(self, counts: NDArray[np.float64]) -> None:
        self.counts, self.areas = counts, np.diagonal(counts)

    def __getitem__(self, rows: Tensor) -> "SharedPixels":
        return SharedPixels(self.counts[np.ix_(rows, rows)])

    def intersections(self) -> NDArray[np.float64]:
        """The number of pixels that each pair shares."""
        return self.counts


class Replaced:
    """Stands for the negatives of ``score``: gives known similarities, float [n, C], in the place of the cosines."""

    def __init__(self, similarity: Tensor) -> None:
        self.similarity = similarity

    def lower(self, similarity: Tensor, vectors: Tensor) -> Tensor:
        """The known similarities."""
        return self.similarity


def forward_and_back(target: Target, tokens: Tokens, bank: MemoryBank, chosen: Sequence[int]) -> dict[str, Tensor]:
    """``forward``, ``both``, ``mutual`` and ``votes`` of the memory's classes: each float [n, C]."""
    count = target.shares.sum(dim=1, keepdim=True)
    columns: dict[str, list[Tensor]] = {"forward": [], "both": [], "mutual": [], "votes": []}
    for index in range(len(bank.categories)):
        shots = [chosen[row] for row in bank.references_of(index)]
        covered = [tokens.vectors[shot][tokens.covered(shot)] for shot in shots]
        similarity = target.tokens @ torch.cat(covered).T  # [P, R]
        forward = (target.shares @ similarity.amax(dim=1, keepdim=True) / count)[:, 0]
        columns["forward"].append(forward)
        back, mutual = [], []
        for inside in target.inside:
            part = similarity[inside]
            best, first = part.max(dim=1)  # of each patch of the proposal, its reference patch
            opposite, second = part.max(dim=0)
            back.append(opposite.mean())
            pairs = second[first] == torch.arange(len(part))
            mutual.append(best[pairs].mean())
        columns["both"].append((forward + torch.stack(back)) / 2)
        columns["mutual"].append(torch.stack(mutual))
        votes = [tokens.covered(shot)[(target.tokens @ tokens.vectors[shot].T).argmax(dim=1)] for shot in shots]
        columns["votes"].append((target.shares @ torch.stack(votes).float().mean(dim=0)[:, None] / count)[:, 0])
    return {name: torch.stack(column, dim=1) for name, column in columns.items()}


def cosines(vectors: Tensor, prototypes: Tensor, positions: Tensor) -> Tensor:
    """Of mask vectors [n, D] with prototypes [C, D], without the directions ``positions`` [N, D]: float [n, C]."""
    of_masks, of_classes = (
        F.normalize(one - one @ positions.T @ positions, dim=1) for one in (vectors, F.normalize(prototypes, dim=1))
    )
    return of_masks @ of_classes.T


def queried(target: Target, bank: MemoryBank, settings: Settings, floor: float, most: int, weight: float) -> Tensor:
    """The prototypes for this image, float [C, D]: the best instances that a first pass finds join their class.

    Args:
        floor: The lowest score of an instance that joins.
        most: How many join a class at most.
        weight: What one of them counts next to a reference.
    """
    assert bank.prototypes is not None
    prototypes = F.normalize(bank.prototypes, dim=1)
    found = target.candidates(target.proposals.vectors @ prototypes.T, settings)
    for index, shots in enumerate(bank.counts.tolist()):
        members = found[(found.classes == index).nonzero()[:, 0]]
        order = members.scores.argsort(descending=True, stable=True)[:most]
        order = order[members.scores[order] >= floor]
        added = target.proposals.vectors[members.rows[order]].sum(dim=0)
        prototypes[index] = (shots * prototypes[index] + weight * added) / (shots + weight * len(order))
    return prototypes


def describe_references(folder: Path, segmenter: ReferenceSegmenter) -> Tokens:
    """The patches of the references in the order of the memory."""
    references, _ = annotation_files(folder)
    bank, encoder = segmenter.memory, segmenter.segmenter.encoder
    assert bank is not None
    shots = read_references(folder / "references.json")
    images = references.parent / "images"
    dataset = ReferenceDataset(
        read_coco(references), images, bank.categories, shots, encoder.size, segmenter.context_ratio
    )
    crops = [loaded(dataset[index]) for index in range(len(dataset))]
    tokens = torch.stack([encoder(one.crop[None])[0] for one in crops])
    weights = torch.stack([patch_weights(one.mask, encoder.size, encoder.grid) for one in crops])
    means = torch.stack([instance_vector(*one) for one in zip(tokens, weights, strict=True)])
    torch.testing.assert_close(means, bank.vectors, atol=1e-3, rtol=1e-3)  # the same references in the same order
    return Tokens(F.normalize(tokens, dim=2), weights)


def read_targets(folder: Path, segmenter: ReferenceSegmenter, coco: COCO) -> list[Target]:
    """The scenes of a seed with their proposals and patches."""
    images = annotation_files(folder)[1].parent / "images"
    entries, encoder, proposer = list(coco.imgs.values()), segmenter.segmenter.encoder, segmenter.segmenter.proposer
    assert proposer is not None
    found = read_proposals(entries, images, segmenter, folder / "proposals")
    targets = []
    for entry, proposals in zip(entries, found, strict=True):
        square = as_float(resize_to_square(read_rgb(images / entry["file_name"]), proposer.size))
        tokens = F.normalize(encoder.feature_map(square[None])[0].flatten(1).T, dim=1)
        targets.append(Target(entry["id"], proposals, tokens, encoder.grid))
    return targets


@torch.inference_mode()
def measure_seed(seed: int, images: int, folder: Path, rows: list[dict[str, Any]], shots: Sequence[int]) -> Figures:
    """The AP of each row and cell; see ``timing.ablation.measure_seed``."""
    usual = Settings(points_per_side=POINTS_PER_SIDE)
    segmenter = segmenter_of(folder, images, seed, shots[-1], usual)
    whole, encoder = segmenter.memory, segmenter.segmenter.encoder
    assert whole is not None
    coco = read_coco(annotation_files(folder)[1])
    targets, tokens = read_targets(folder, segmenter, coco), describe_references(folder, segmenter)
    encoder.remove_positions(MOST_DIRECTIONS)
    figures: Figures = {}
    for count in shots:
        bank = some_shots(whole, count)
        chosen = [row for index in range(len(bank.categories)) for row in whole.references_of(index)[:count]]
        names = [category.name for category in bank.categories]
        single = [bank.remove([other for other in names if other != name]) for name in names]
        matched = [forward_and_back(target, tokens, bank, chosen) for target in targets]
        for row in rows:
            settings = Settings(**row.get("settings", {}))
            for several, memories in ((False, list(enumerate(single))), (True, [(slice(None), bank)])):
                records = []
                for columns, memory in memories:
                    for target, by_patches in zip(targets, matched, strict=True):
                        part = {name: one[:, columns].reshape(len(one), -1) for name, one in by_patches.items()}
                        similarity = compare(target, memory, row, settings, part, encoder.positions)
                        records.extend(target.records(similarity, memory, settings))
                figures[str(row), Cell(count, several)] = ap(coco, records, bank)
    return figures


def compare(
    target: Target,
    bank: MemoryBank,
    row: dict[str, Any],
    settings: Settings,
    by_patches: dict[str, Tensor],
    positions: Tensor,
) -> Tensor:
    """The similarities of a scene's proposals to the memory's classes in the way of a row, float [n, C]."""
    prototypes = queried(target, bank, settings, *row["query"]) if "query" in row else bank.prototypes
    assert prototypes is not None
    similarity = cosines(target.proposals.vectors, prototypes, positions[: row.get("debias", 0)])
    weight = row.get("weight", 0.0)
    return (1 - weight) * similarity + weight * by_patches[row["patches"]] if weight else similarity


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Seeds to measure. Tune on others.")
    parser.add_argument("--images", type=int, default=40, help="Scenes per seed.")
    parser.add_argument("--folder", type=Path, help="Keep the scenes and their proposals here for the next time.")
    options = parser.parse_args(argv)
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print_table([measure_seed(seed, options.images, folder / str(seed), ROWS, SHOTS) for seed in options.seeds])


if __name__ == "__main__":
    main()

"""The plain implementation of the method (``method/plain.py``) and the fast one, side by side on one image.

``python -m timing.stages`` builds networks of full size with seeded weights, prints a table with one row per step, and
writes it to its section of ``timing/RESULTS.md``. It fails if the two implementations find different instances.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.images import read_rgb
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method import plain as plain_method
from no_time_to_train.method.classify import classify
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.pool import pool
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.suppress import suppress
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_sam2, build_vit
from no_time_to_train.pipeline.proposal_cache import ProposalCache
from tests.seeded_weights import seeded_state_dict
from timing.measure import Measured, measure, measure_both
from timing.report import RESULTS, Section

#: Size of the image in pixels.
HEIGHT, WIDTH = 427, 640

#: Prompts that the plain implementation decodes at once.
PLAIN_BATCH = 64

#: Classes of the memory, as many as COCO-FSOD has.
CLASSES = 20

#: How many times each step is measured; the whole image is measured once.
REPEATS = 3

#: The largest difference of scores between the implementations.
TOLERANCE = 1e-4

Network = TypeVar("Network", bound=nn.Module)


class Table(Section):
    """The section of the plain implementation against the fast one.

    Args:
        device: The device that is measured.
        text: What was measured.
    """

    def __init__(self, device: torch.device, text: str) -> None:
        columns = ["step", "plain, s", "ours, s", "ratio", "plain, MB", "ours, MB", "largest difference"]
        super().__init__("Plain against ours", "python -m timing.stages", device, text, columns, slice(1, -1))

    def compare(self, step: str, plain: Measured[Any] | None, ours: Measured[Any], difference: str) -> None:
        """Add a row.

        Args:
            step: The first cell.
            plain: What the plain implementation took; None where it has no such step.
            ours: What the fast implementation took.
            difference: The last cell.
        """
        if plain is None:
            cells = ["", f"{ours.seconds:.3f}", "", "", f"{ours.peak / 1e6:.0f}"]
        else:
            times = [f"{plain.seconds:.3f}", f"{ours.seconds:.3f}", f"{plain.seconds / ours.seconds:.1f}"]
            cells = [*times, f"{plain.peak / 1e6:.0f}", f"{ours.peak / 1e6:.0f}"]
        self.add(step, *cells, difference)


def largest_difference(ours: Tensor, plain: Tensor) -> str:
    """The largest difference of two tensors, with the largest value for comparison.

    Raises:
        SystemExit: Their shapes differ.
    """
    if ours.shape != plain.shape:
        raise SystemExit(f"error: ours gives {list(ours.shape)}, the plain implementation {list(plain.shape)}")
    return f"{float((ours - plain).abs().max()):.1e} of {float(plain.abs().max()):.3g}"


def difference_of_detections(ours: Detections, plain: Detections) -> float:
    """The largest difference of the scores of the same detections. Detections with close scores may be swapped.

    Raises:
        SystemExit: One of the two has a detection that the other does not have.
    """
    pixels, others = (torch.from_numpy(found.masks.dense()).flatten(1).float() for found in (ours, plain))
    common = pixels @ others.T
    iou = common / (pixels.sum(dim=1)[:, None] + others.sum(dim=1) - common)
    same = (iou > 0.999) & (ours.classes[:, None] == plain.classes) & (ours.boxes[:, None] == plain.boxes).all(dim=2)
    same &= (ours.scores[:, None] - plain.scores).abs() <= TOLERANCE
    if len(ours) != len(plain) or not same.any(dim=0).all() or not same.any(dim=1).all():
        raise SystemExit("error: the plain implementation finds other instances")
    return float((ours.scores - plain.scores).abs().max()) if len(ours) else 0.0


def seeded(network: Network) -> Network:
    """Fill a network with weights that depend only on their names and shapes."""
    network.load_state_dict(seeded_state_dict({name: value.shape for name, value in network.state_dict().items()}))
    return network


def seeded_segmenter(sam2: str, encoder: str, img_size: int, settings: Settings) -> Segmenter:
    """The method with seeded networks and prototypes of 0, which the caller replaces.

    Args:
        sam2: SAM 2 model.
        encoder: DINOv2 model.
        img_size: Side of the encoder's input in pixels.
        settings: The method's numbers.
    """
    described = Encoder(seeded(build_vit(encoder, img_size)))
    proposer = MaskProposer(seeded(build_sam2(sam2)), settings)
    return Segmenter(described, proposer, torch.zeros(CLASSES, described.dim), settings)


def ellipses(count: int, height: int, width: int) -> Tensor:
    """Random ellipses, many of which overlap.

    Args:
        count: n, the number of ellipses.
        height: Height of the maps in pixels.
        width: Width of the maps in pixels.

    Returns:
        float32 [n, height, width], positive inside each ellipse.
    """
    rng = np.random.default_rng(0)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    places = rng.uniform([0, 0, height / 30, width / 30], [height, width, height / 5, width / 5], (count, 4))
    return torch.stack([1 - ((y - cy) / ry) ** 2 - ((x - cx) / rx) ** 2 for cy, cx, ry, rx in places]).float()


def measure_encoders(segmenter: Segmenter, image: Tensor, table: Table) -> None:
    """Measure both image encoders, which are those of the packages in either implementation.

    Args:
        segmenter: The networks.
        image: float [3, S, S] in [0, 1].
        table: Two rows are added.
    """
    proposer, encoder = segmenter.proposer, segmenter.encoder
    assert proposer is not None

    def encode() -> tuple[Tensor, list[Tensor]]:
        return proposer.encode(image.clone())  # features of the same tensor are kept

    plain, ours = measure_both(encode, encode, image.device, REPEATS - 1)
    table.compare("SAM 2 image encoder", plain, ours, largest_difference(ours.result[0], plain.result[0]))
    plain_map, our_map = measure_both(
        lambda: plain_method.encode(encoder.vit, image),
        lambda: encoder.feature_map(image[None])[0],
        image.device,
        REPEATS - 1,
    )
    table.compare("DINOv2", plain_map, our_map, largest_difference(our_map.result, plain_map.result))


def measure_decoder(proposer: MaskProposer, image: Tensor, count: int, table: Table) -> None:
    """Measure the mask decoder.

    Args:
        proposer: SAM 2.
        image: float [3, S, S] in [0, 1].
        count: The number of points to decode, spread over the grid.
        table: A row is added.
    """
    features = proposer.encode(image)
    grid = point_grid(proposer.points_per_side, proposer.size).to(image.device)
    points = grid[:: max(len(grid) // count, 1)][:count]
    plain, ours = measure_both(
        lambda: plain_method.decode(proposer.sam2, *features, points, PLAIN_BATCH),
        lambda: proposer.decode(*features, points),
        image.device,
        REPEATS,
    )
    kept = plain.result.logits[plain.result.predicted_iou > proposer.pred_iou_thresh]
    difference = largest_difference(ours.result.logits, kept)
    table.compare(f"mask decoder, {len(points)} points", plain, ours, difference)


def measure_pooling_and_matching(features: Tensor, prototypes: Tensor, table: Table) -> None:
    """Measure pooling, and classification with suppression, on 1,024 ellipses (docs/method.md, 3.5 and 3.6).

    Args:
        features: float [D, g, g].
        prototypes: float [C, D].
        table: Two rows are added.
    """
    device = features.device
    regions = ellipses(1024, 256, 256).to(device) > 0
    regions = regions[regions.any(dim=(1, 2))]
    plain, ours = measure_both(
        lambda: plain_method.pool(features, regions), lambda: pool(features, regions), device, REPEATS
    )
    table.compare(f"pooling, {len(regions)} proposals", plain, ours, largest_difference(ours.result, plain.result))

    vectors, predicted_iou = plain.result, torch.linspace(1, 0.4, len(regions), device=device)

    def match_plainly() -> tuple[Tensor, Tensor, Tensor]:
        scores, classes = plain_method.classify(vectors, prototypes)
        kept = plain_method.suppress(regions, predicted_iou, scores, classes)
        return kept, scores[kept], classes[kept]

    def match() -> tuple[Tensor, Tensor, Tensor]:
        boxes = masks_to_boxes(regions).long()
        proposals = DescribedProposals(predicted_iou, boxes, vectors, Masks.pack(np.zeros((0, 1, 1), bool)).__getitem__)
        candidates = suppress(classify(proposals, prototypes), proposals)
        return candidates.rows, candidates.scores, candidates.classes

    plain_match, our_match = measure_both(match_plainly, match, device, REPEATS)
    for ours_one, plain_one in zip(our_match.result[::2], plain_match.result[::2], strict=True):
        if not torch.equal(ours_one, plain_one):
            raise SystemExit("error: the plain implementation keeps other proposals")
    difference = largest_difference(our_match.result[1], plain_match.result[1])
    table.compare("classification and suppression", plain_match, our_match, difference)


def measure_merging(dim: int, device: torch.device, table: Table) -> None:
    """Measure soft merging on 300 ellipses of one class at 1024x768 (docs/method.md, 3.8).

    Args:
        dim: D, the width of the mask vectors.
        device: The device that computes.
        table: A row is added.
    """
    regions = ellipses(300, 768, 1024).to(device) > 0
    generator = torch.Generator().manual_seed(0)
    vectors = nn.functional.normalize(1 + torch.rand(len(regions), dim, generator=generator), dim=1).to(device)
    scores = torch.linspace(1, 0.5, len(regions), device=device)
    classes = torch.zeros(len(regions), dtype=torch.int64, device=device)
    plain, ours = measure_both(
        lambda: plain_method.soft_merge(scores, classes, regions, vectors),
        lambda: soft_merge(scores, classes, Masks.pack(regions.cpu()), vectors),
        device,
        REPEATS,
    )
    step = f"soft merging, {len(regions)} of one class, 1024x768"
    table.compare(step, plain, ours, largest_difference(ours.result, plain.result))


def measure_whole_image(segmenter: Segmenter, path: Path, device: torch.device, table: Table) -> None:
    """Measure everything from the image file to COCO records, and again with other prototypes and a filled cache.

    Args:
        segmenter: The networks and prototypes. The prototypes are changed.
        path: The image file. The cache is written next to it.
        device: The device that computes.
        table: Three rows are added.

    Raises:
        SystemExit: The two implementations find different instances.
    """
    proposer, category_ids = segmenter.proposer, list(range(CLASSES))
    assert proposer is not None
    size = proposer.size

    def load() -> Tensor:
        return target_tensor(read_rgb(path), size).to(device)

    def with_records(found: Detections) -> Detections:
        to_coco_records(found, 1, category_ids)
        return found

    def segment_plainly() -> Detections:
        found = plain_method.segment(
            segmenter.encoder.vit,
            proposer.sam2,
            segmenter.prototypes,
            read_rgb(path),
            points_per_side=proposer.points_per_side,
            pred_iou_thresh=proposer.pred_iou_thresh,
        )
        boxes, scores, classes = (each.cpu() for each in found[1:])
        return with_records(Detections(Masks.pack(found.masks.cpu()), boxes, scores, classes))

    proposals: list[DescribedProposals] = []

    def segment() -> Detections:
        proposals[:] = [segmenter.describe(load(), HEIGHT, WIDTH)]
        return with_records(segmenter.match_and_merge(proposals[0]))

    plain, ours = measure_both(segment_plainly, segment, device)
    difference = difference_of_detections(ours.result, plain.result)
    points = f"{proposer.points_per_side}x{proposer.points_per_side} points"
    found = f"{len(ours.result)} identical detections, scores within {difference:.1e}"
    table.compare(f"whole image, {points}", plain, ours, found)

    cache = ProposalCache(path.parent / "cache", {})
    key = cache.key(path)
    filling = measure(lambda: cache.write(key, proposals[0], HEIGHT, WIDTH), device)
    (entry,) = (path.parent / "cache").rglob("*.proposals")
    stored = f"{len(proposals.pop())} proposals, {entry.stat().st_size / 1e6:.2f} MB"
    table.compare("filling the cache, in addition", None, filling, stored)
    segmenter.prototypes = segmenter.prototypes.flip(1)

    def segment_from_cache() -> Detections:
        entry = cache.read(cache.key(path))
        assert entry is not None
        return with_records(segmenter.match_and_merge(entry.proposals.to(device)))

    cached = min((measure(segment_from_cache, device) for _ in range(REPEATS)), key=lambda run: run.seconds)
    faster = f"{ours.seconds / cached.seconds:.0f} times as fast as ours without the cache"
    table.compare("second reference set, filled cache", plain, cached, faster)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sam2", default="sam2_hiera_l", help="SAM 2 model.")
    parser.add_argument("--encoder", default="dinov2_large", help="DINOv2 model.")
    parser.add_argument("--img-size", type=int, default=518, help="Side of the encoder's input in pixels.")
    parser.add_argument("--points-per-side", type=int, default=32, help="Points per side of the grid.")
    parser.add_argument("--decoder-points", type=int, default=128, help="Points on which the decoder is measured.")
    parser.add_argument(
        "--iou-thr", type=float, default=0.0, help="Threshold of the predicted IoU; 0 keeps all proposals."
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="Device.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write.")
    options = parser.parse_args(argv)
    device = torch.device(options.device)

    settings = Settings(
        points_per_side=options.points_per_side, points_per_batch=PLAIN_BATCH, pred_iou_thresh=options.iou_thr
    )
    segmenter = seeded_segmenter(options.sam2, options.encoder, options.img_size, settings).to(device)
    proposer, encoder = segmenter.proposer, segmenter.encoder
    assert proposer is not None
    table = Table(
        device,
        f"{options.sam2} and {options.encoder} with seeded weights, float32, a {WIDTH}x{HEIGHT} image, proposals with "
        f"a predicted IoU above {options.iou_thr}. The plain implementation decodes {PLAIN_BATCH} points at a time. MB "
        "is the largest memory that a step needs in addition to what was in use before it.",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (HEIGHT, WIDTH))
        cv2.imwrite(str(path), scene.image[..., ::-1])
        image = target_tensor(read_rgb(path), proposer.size).to(device)
        features = encoder.feature_map(image[None])[0]
        tokens = features.flatten(1).T
        segmenter.remember(tokens[:: len(tokens) // CLASSES][:CLASSES].contiguous())
        measure_encoders(segmenter, image, table)
        measure_decoder(proposer, image, options.decoder_points, table)
        measure_pooling_and_matching(features, segmenter.prototypes, table)
        measure_merging(encoder.dim, device, table)
        measure_whole_image(segmenter, path, device, table)
    table.write(options.out)


if __name__ == "__main__":
    main()

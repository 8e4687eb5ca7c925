"""The plain implementation of the method (tests/plain_method.py) and ours, side by side on one image.

``python -m timing.stages`` builds seeded networks of full size, prints a table by stage and writes it to
``timing/RESULTS.md``. It ends with an error where the two differ in a detection.
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from no_time_to_train.method.matching import match, region_boxes
from torch import Tensor, nn

from no_time_to_train.config import Sam2InferCfg
from no_time_to_train.data.images import read_rgb
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.mask_proposals import MaskProposer, point_grid
from no_time_to_train.method.packed_masks import PackedMasks
from no_time_to_train.method.pool import pool
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.target_image import target_tensor
from no_time_to_train.networks.build import build_dinov2, build_sam2
from no_time_to_train.pipeline.proposal_cache import ProposalCache, StoredProposals
from tests.conftest import assert_same_results
from tests.seeded_weights import seeded_state_dict
from timing.measure import Measured, machine, measure, side_by_side

HEIGHT, WIDTH = 427, 640  # of the image
PLAIN_BATCH = 64  # prompts that the plain implementation decodes at once
CLASSES = 20  # of the memory, as many as COCO-FSOD has
REPEATS = 3  # of all but the whole image

Records = list[dict[str, Any]]


class Table:
    """The results, printed as they come."""

    def __init__(self, head: str) -> None:
        self.lines = [
            *head.splitlines(),
            "",
            "| stage | plain, s | ours, s | ratio | plain, MB | ours, MB | largest difference |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        print("\n".join(self.lines), flush=True)

    def add(self, stage: str, plain: Measured[Any] | None, ours: Measured[Any], difference: str) -> None:
        if plain is None:
            cells = ["", f"{ours.seconds:.3f}", "", "", f"{ours.peak / 1e6:.0f}"]
        else:
            times = [f"{plain.seconds:.3f}", f"{ours.seconds:.3f}", f"{plain.seconds / ours.seconds:.1f}"]
            cells = [*times, f"{plain.peak / 1e6:.0f}", f"{ours.peak / 1e6:.0f}"]
        self.say(f"| {' | '.join([stage, *cells, difference])} |")

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


def largest(ours: Tensor, plain: Tensor) -> str:
    """The largest difference of two tensors, beside the largest value."""
    if ours.shape != plain.shape:
        raise SystemExit(f"error: ours gives {list(ours.shape)}, the plain implementation {list(plain.shape)}")
    return f"{float((ours - plain).abs().max()):.1e} of {float(plain.abs().max()):.3g}"


def seeded(network: nn.Module) -> nn.Module:
    network.load_state_dict(seeded_state_dict({name: value.shape for name, value in network.state_dict().items()}))
    return network


def ellipses(count: int, height: int, width: int) -> Tensor:
    """Drawn regions, overlapping a good deal: float logits [count, height, width]."""
    rng = np.random.default_rng(0)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    places = rng.uniform([0, 0, height / 30, width / 30], [height, width, height / 5, width / 5], (count, 4))
    return torch.stack([1 - ((y - cy) / ry) ** 2 - ((x - cx) / rx) ** 2 for cy, cx, ry, rx in places]).float()


def encoders(segmenter: Segmenter, image: Tensor, table: Table) -> None:
    """Both image encoders: the packages' own in either implementation."""
    proposer, encoder = segmenter.proposer, segmenter.encoder
    assert proposer is not None
    encode = partial(proposer.encode, image)
    plain, ours = side_by_side(encode, encode, image.device, REPEATS - 1)
    table.add("SAM 2 image encoder", plain, ours, largest(ours.result[0], plain.result[0]))
    plain_map, our_map = side_by_side(
        lambda: encode(encoder, image),
        lambda: encoder.feature_map(image[None])[0],
        image.device,
        REPEATS - 1,
    )
    table.add("DINOv2", plain_map, our_map, largest(our_map.result, plain_map.result))


def decoder(proposer: MaskProposer, image: Tensor, count: int, table: Table) -> None:
    """The mask decoder, on ``count`` points spread over the grid."""
    features = proposer.encode(image)
    grid = point_grid(proposer.points_per_side, proposer.size).to(image.device)
    points = grid[:: max(len(grid) // count, 1)][:count]
    plain, ours = side_by_side(
        lambda: decode(proposer.sam2, *features, points, PLAIN_BATCH),
        lambda: proposer.decode(*features, points),
        image.device,
        REPEATS,
    )
    kept = plain.result[plain.result.predicted_iou > proposer.iou_thr]
    table.add(f"mask decoder, {len(points)} points", plain, ours, largest(ours.result.logits, kept.logits))


def pooling_and_matching(features: Tensor, prototypes: Tensor, table: Table) -> None:
    """Steps 5 and 6, on 1,024 drawn proposals."""
    regions = ellipses(1024, 256, 256).to(features.device) > 0
    regions = regions[regions.any(dim=(1, 2))]
    plain, ours = side_by_side(
        lambda: pool(features, regions), lambda: pool(features, regions), features.device, REPEATS
    )
    table.add(f"pooling, {len(regions)} proposals", plain, ours, largest(ours.result, plain.result))

    vectors, iou = plain.result, torch.linspace(1, 0.4, len(regions), device=features.device)

    def ours_matched() -> list[Tensor]:
        proposals = DescribedProposals(iou, region_boxes(regions), vectors, lambda rows: PackedMasks.pack(np.array([])))
        candidates = match(proposals, prototypes)
        return [candidates.rows, candidates.scores, candidates.classes]

    plain_all, our_all = side_by_side(
        lambda: plain_candidates(regions, iou, vectors, prototypes), ours_matched, features.device, REPEATS
    )
    for ours_one, plain_one in zip(our_all.result[::2], plain_all.result[::2], strict=True):
        if not torch.equal(ours_one, plain_one):
            raise SystemExit("error: matching keeps other proposals than the plain implementation")
    table.add("matching", plain_all, our_all, largest(our_all.result[1], plain_all.result[1]))


def merging(dim: int, device: torch.device, table: Table) -> None:
    """Step 8, on 300 proposals of one class at 1024x768."""
    regions = ellipses(300, 768, 1024).to(device) > 0
    generator = torch.Generator().manual_seed(0)
    vectors = nn.functional.normalize(1 + torch.rand(len(regions), dim, generator=generator), dim=1).to(device)
    scores, classes = torch.linspace(1, 0.5, len(regions), device=device), torch.zeros(len(regions), dtype=torch.int64)
    classes = classes.to(device)
    plain, ours = side_by_side(
        lambda: soft_merge(scores, classes, regions, vectors),
        lambda: soft_merge(scores, classes, PackedMasks.pack(regions.cpu().numpy()), vectors),
        device,
        REPEATS,
    )
    table.add(f"soft merging, {len(regions)} of one class, 1024x768", plain, ours, largest(ours.result, plain.result))


def whole_image(segmenter: Segmenter, path: Path, device: torch.device, table: Table) -> None:
    """From the file to COCO records; then again with other references and a warm cache."""
    proposer, categories = segmenter.proposer, list(range(CLASSES))
    assert proposer is not None

    def load() -> Tensor:
        return target_tensor(read_rgb(path), proposer.size).to(device)

    def plain_records() -> Records:
        image = load()
        found = match_and_merge(
            propose(proposer, image, PLAIN_BATCH),
            encode(segmenter.encoder, image),
            segmenter.prototypes,
            HEIGHT,
            WIDTH,
        )
        return Detections(**found).cpu().to_coco(1, categories)

    proposals: list[DescribedProposals] = []

    def our_records() -> Records:
        proposals[:] = [segmenter.propose(load(), HEIGHT, WIDTH)]
        return segmenter.name_and_merge(proposals[0]).to_coco(1, categories)

    plain, ours = side_by_side(plain_records, our_records, device)
    assert_same_results(ours.result, plain.result)
    apart = max(abs(a["score"] - b["score"]) for a, b in zip(ours.result, plain.result, strict=True))
    points = f"{proposer.points_per_side}x{proposer.points_per_side} points"
    table.add(f"whole image, {points}", plain, ours, f"{len(ours.result)} detections identical, scores to {apart:.1e}")

    cache = ProposalCache(path.parent / "cache", {})
    key = cache.key(path)
    filling = measure(lambda: cache.write(key, StoredProposals.of(proposals[0], HEIGHT, WIDTH)), device)
    (entry,) = cache.folder.iterdir()
    count = len(proposals.pop().boxes)
    table.add("filling the cache, on top", None, filling, f"{count} proposals, {entry.stat().st_size / 1e6:.2f} MB")
    segmenter.prototypes = segmenter.prototypes.flip(1)

    def again() -> Records:
        stored = cache.read(cache.key(path))
        assert stored is not None
        return segmenter.name_and_merge(stored.described(device)).to_coco(1, categories)

    warm = min((measure(again, device) for _ in range(REPEATS)), key=lambda measured: measured.seconds)
    table.add(
        "second reference set, cache warm", plain, warm, f"{ours.seconds / warm.seconds:.0f}x our own first, uncached"
    )


def throughput(segmenter: Segmenter, image: Tensor, table: Table, images: int = 20) -> None:
    """Images a second on a GPU, in float32 and in bf16."""
    table.say("")
    for name, precision in (("float32", None), ("bf16 autocast", torch.bfloat16)):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision is not None):
            work: Callable[[], Any] = partial(segmenter.segment, image, HEIGHT, WIDTH)
            work()
            measured = measure(lambda work=work: [work() for _ in range(images)], image.device)
        table.say(f"{name}: {images / measured.seconds:.1f} images/s")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sam2", default="sam2_hiera_l", help="SAM 2 model")
    parser.add_argument("--encoder", default="dinov2_large", help="DINOv2 model")
    parser.add_argument("--img-size", type=int, default=518, help="side of the encoder's input")
    parser.add_argument("--points-per-side", type=int, default=32, help="grid of the whole image")
    parser.add_argument("--decoder-points", type=int, default=128, help="points that the decoder alone is measured on")
    parser.add_argument("--iou-thr", type=float, default=0.0, help="0: no point is dropped, which is the most work")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "RESULTS.md", help="the table, as Markdown")
    options = parser.parse_args()
    device = torch.device(options.device)

    encoder = Encoder(seeded(build_dinov2(options.encoder, options.img_size)))  # type: ignore[arg-type]
    sam2 = seeded(build_sam2(options.sam2))
    proposer = MaskProposer(sam2, options.points_per_side, PLAIN_BATCH, options.iou_thr)  # type: ignore[arg-type]
    segmenter = Segmenter(encoder, proposer, torch.zeros(CLASSES, encoder.dim), Sam2InferCfg()).to(device)
    table = Table(
        "# Benchmarks\n\n"
        f"`python -m timing.stages`, {date.today().isoformat()}: {machine(device)}.\n\n"
        f"{options.sam2} and {options.encoder} with seeded weights, float32, a {WIDTH}x{HEIGHT} image, proposals of a "
        f"predicted IoU over {options.iou_thr}. The plain implementation decodes {PLAIN_BATCH} points at a time. MB: "
        "what a stage needs at most, beside what was in use before it."
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        scene = draw_scene(np.random.default_rng(0), NOVEL_CLASSES, (HEIGHT, WIDTH))
        cv2.imwrite(str(path), scene.image[..., ::-1])
        image = target_tensor(read_rgb(path), proposer.size).to(device)
        features = encoder.feature_map(image[None])[0]
        tokens = features.flatten(1).T
        segmenter.prototypes = tokens[:: len(tokens) // CLASSES][:CLASSES].contiguous()
        encoders(segmenter, image, table)
        decoder(proposer, image, options.decoder_points, table)
        pooling_and_matching(features, segmenter.prototypes, table)
        merging(encoder.dim, device, table)
        whole_image(segmenter, path, device, table)
        if device.type == "cuda":
            throughput(segmenter, image, table)
    options.out.write_text("\n".join(table.lines) + "\n")


if __name__ == "__main__":
    main()

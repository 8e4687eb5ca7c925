"""Runs the package's faces on a CPU and on a pretended GPU, and prints both as JSON, for ``test_pretended_gpu.py``.

A process of its own, because ``torch.inference_mode`` must be replaced before the package is imported.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

torch.inference_mode = torch.no_grad  # type: ignore[misc]

import numpy as np  # noqa: E402

from no_time_to_train import ReferenceSegmenter, Settings  # noqa: E402
from no_time_to_train.benchmarks.own_data_set import STAGES, BenchmarkOptions, configure, run_stages  # noqa: E402
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene, write_coco  # noqa: E402
from no_time_to_train.files import read_json  # noqa: E402
from no_time_to_train.method.beyond.given import Given  # noqa: E402
from no_time_to_train.method.fast.masks import Masks  # noqa: E402
from tests.conftest import model_options  # noqa: E402
from timing.pretended_gpu import DEVICE, pretend_cuda  # noqa: E402

SCENES = [draw_scene(np.random.default_rng(seed), NOVEL_CLASSES, (96, 128)) for seed in range(3)]
SMALL = Settings(points_per_side=6)


def box_of(mask: Any) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def show(segmenter: ReferenceSegmenter) -> None:
    """A reference of each form, and a negative one."""
    masks = SCENES[0].masks
    segmenter.add_reference("mask", SCENES[0].image, mask=masks[0])
    segmenter.add_reference("box", SCENES[0].image, box=box_of(masks[1]))
    x1, y1, x2, y2 = box_of(masks[1])
    segmenter.add_reference("point", SCENES[0].image, point=((x1 + x2) / 2, (y1 + y2) / 2))
    segmenter.add_reference("mask", SCENES[1].image, mask=SCENES[1].masks[0], negative=True)


def given(pixels: Any) -> Given:
    """A proposer of masks."""
    masks = np.zeros((2, *pixels.shape[:2]), bool)
    masks[0, 10:40, 10:50] = masks[1, 30:80, 60:120] = True
    boxes = torch.tensor([[10.0, 10, 50, 40], [60, 30, 120, 80]])
    return Given(boxes, torch.tensor([0.9, 0.8]), Masks.pack(masks))


def found_by(device: str, precision: Any = "float32", proposer: Any = "grid", **settings: Any) -> list[Any]:
    segmenter = ReferenceSegmenter.from_pretrained(
        "nano", device=device, settings=replace(SMALL, **settings), precision=precision, proposer=proposer
    )
    show(segmenter)
    with_boxes = segmenter.propose(SCENES[2].image, boxes=[box_of(mask) for mask in SCENES[2].masks])
    found = [segmenter.classify(with_boxes, threshold=0)] if settings.get("tiles", 1) == 1 else []
    DEVICE.reset()
    found.append(segmenter.segment(SCENES[2].image, threshold=0))
    return [one.to_coco() for one in found]


def stages_found(device: str) -> list[Any]:
    """The three stages by Lightning, with the cache; the second time, its proposals are those of the cache."""
    DEVICE.reset()
    with TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        scenes = write_coco(folder / "scenes", NOVEL_CLASSES[:2], 2, seed=1)
        kind, _, index = device.partition(":")
        configure(scenes, scenes, folder, BenchmarkOptions(n_shot=1, nano=True, points_per_side=4, device=kind))
        options = model_options({"cache_dir": folder / "cache", "data_load_cfgs.workers": 0})
        options += ["--trainer.devices", f"[{index}]"] * bool(index)
        found = []
        for stages in (STAGES, STAGES[2:]):
            run_stages(folder, stages, options)
            found.append(read_json(folder / "results.json"))
        assert list((folder / "cache").rglob("*.proposals"))
    return found


FACES: dict[str, Callable[[str], Any]] = {
    "paper": found_by,
    "best": lambda device: found_by(device, score="cosine_iou", suppression="none", merge_exponent=0.75),
    "guided": lambda device: found_by(device, prompts="guided"),
    "diffusion": lambda device: found_by(device, merging="diffusion", suppression="soft_nms"),
    "tiles": lambda device: found_by(device, tiles=2),
    "sources": lambda device: found_by(device, proposer=["grid", given]),
    "fsod_vfm": lambda device: found_by(
        device,
        **{"multimask": False, "no_mem_embed": True, "quality": "given", "pooling": "grid", "compared_at": "grid"},
        **{"min_similarity": -1, "output_box": "proposal", "merging": "diffusion", "suppression": "none"},
    ),
    "stages": stages_found,
    "bfloat16": lambda device: found_by(device, precision="bfloat16"),
}


def main() -> None:
    on_cpu = {name: face("cpu") for name, face in FACES.items()}
    with pretend_cuda():
        on_gpu, counts = {}, {}
        for name, face in FACES.items():
            DEVICE.current = 0
            on_gpu[name] = face("cuda:1")
            counts[name] = {"launches": DEVICE.launches, "waits": DEVICE.waits, "where": dict(DEVICE.wait_at)}
            counts[name]["by_operation"] = dict(DEVICE.by_operation)
    json.dump({"cpu": on_cpu, "gpu": on_gpu, "counts": counts, "tensors on": DEVICE.tensors_on}, sys.stdout)


if __name__ == "__main__":
    main()

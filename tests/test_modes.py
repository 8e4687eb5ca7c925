"""The settings that differ from the paper's: what each computes, and that all runs take them alike."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

from no_time_to_train import MemoryBank, ReferenceSegmenter, Settings, UserError
from no_time_to_train.benchmarks.report.runs import OURS, read_run
from no_time_to_train.cli import main
from no_time_to_train.config import OUR_NAMES, StageSettings, renamed
from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.method.beyond.ablations import hard_merge, merge_by_overlap
from no_time_to_train.method.beyond.diffusion import ALPHA, diffuse
from no_time_to_train.method.beyond.soft_nms import soft_nms
from no_time_to_train.method.classify import classify
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.method.proposals import Candidates, DescribedProposals
from no_time_to_train.method.segmenter import SUPPRESS, classify_and_merge, keep_best, score
from no_time_to_train.method.settings import MODES
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.suppress import suppress
from tests import fsod_vfm
from tests.conftest import Arguments, Checkpoints, Photo, Refusal, recorded, results
from timing.ablation import Scene

CONFIGS = Path(__file__).parents[1] / "configs"
KEYS = ("score", "suppression", "merging", "merge_exponent")

#: One setting each, and all of ``best``.
CHANGES: list[dict[str, Any]] = [
    {"score": "cosine_iou"},
    {"suppression": "soft_nms"},
    {"suppression": "none"},
    {"merging": "diffusion"},
    {"merging": "overlap"},
    {"merging": "hard"},
    {"merge_exponent": 0.0},
    MODES["best"],
]


def no_masks(rows: Tensor) -> Masks:
    raise AssertionError("no mask is needed")


def proposals_of(predicted_iou: Tensor, boxes: Any = None, vectors: Any = None) -> DescribedProposals:
    n = len(predicted_iou)
    boxes = torch.tensor([[0, 0, 9, 9]]).repeat(n, 1) if boxes is None else boxes
    vectors = torch.eye(n) if vectors is None else vectors
    return DescribedProposals(predicted_iou, boxes, vectors, no_masks)


def random_rectangles(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, 60, 70), bool)
    for mask in masks:
        y, x = rng.integers(0, (40, 50))
        mask[y : y + rng.integers(5, 30), x : x + rng.integers(5, 30)] = True
    return masks


@pytest.mark.parametrize("seed", range(3))
def test_diffusion_is_where_the_plain_iteration_ends(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks, n = random_rectangles(24, seed), 24
    scores, classes = torch.rand(n, generator=generator), torch.randint(3, (n,), generator=generator)
    found = diffuse(scores, classes, Masks.pack(masks), torch.zeros(n, 2), exponent=0.5)
    assert (found < scores).sum() > n / 3
    covered = fsod_vfm.diffusion(torch.from_numpy(masks), classes, ALPHA, steps=500)
    torch.testing.assert_close(found, scores * (1 - covered).clamp(min=0) ** 0.5, atol=1e-5, rtol=0)
    for c in range(3):
        first = (classes == c).nonzero()[0, 0]
        assert found[first] == scores[first], "no better mask covers the first one"


def test_merging_by_overlap_takes_masks_as_alike_and_hard_merging_drops_covered_ones() -> None:
    masks = np.zeros((4, 10, 10), bool)
    masks[0, :, :5] = masks[1, :5, :5] = masks[2, :, 4:] = masks[3, :5, :5] = True
    scores, classes = torch.full((4,), 0.8), torch.tensor([0, 0, 0, 1])  # the last one is of another class
    unlike = torch.eye(4)
    assert soft_merge(scores, classes, Masks.pack(masks), unlike).equal(scores)
    by_overlap = merge_by_overlap(scores, classes, Masks.pack(masks), unlike)
    torch.testing.assert_close(by_overlap, 0.8 * torch.tensor([1, 0, (5 / 6) ** 0.5, 1]))
    assert hard_merge(scores, classes, Masks.pack(masks), unlike).tolist() == pytest.approx([0.8, 0, 0.8, 0.8])


@pytest.mark.parametrize("merge", [soft_merge, merge_by_overlap, diffuse])
def test_exponent_0_merges_nothing(merge: Callable[..., Tensor]) -> None:
    masks = Masks.pack(random_rectangles(8, 0))
    scores = torch.linspace(0.1, 0.9, 8)
    assert merge(scores, torch.zeros(8, dtype=torch.int64), masks, torch.ones(8, 1), 0.0).equal(scores)


def test_soft_nms_is_the_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 40
    corners = torch.randint(0, 60, (n, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(5, 40, (n, 2), generator=generator)], dim=1)
    scores, classes = torch.rand(n, generator=generator), torch.randint(2, (n,), generator=generator)
    rows = torch.randperm(n, generator=generator)
    found = soft_nms(Candidates(rows, scores, classes), proposals_of(torch.ones(n), boxes))
    for c in range(2):
        waiting = {i: float(scores[i]) for i in range(n) if classes[i] == c}
        while waiting:
            best = max(waiting, key=lambda i: waiting[i])
            assert float(found.scores[best]) == pytest.approx(waiting.pop(best), abs=1e-6)
            for i in waiting:
                iou = float(box_iou(boxes[rows[[best]]].float(), boxes[rows[[i]]].float()))
                waiting[i] *= float(np.exp(-(iou**2) / 0.5))
    assert found.classes.equal(classes)


def test_soft_nms_keeps_the_best_of_hundreds_of_equal_boxes() -> None:
    n = 300  # the scores of the last ones fall below the smallest float
    candidates = Candidates(torch.arange(n), torch.linspace(0.5, 0.9, n), torch.zeros(n, dtype=torch.int64))
    found = soft_nms(candidates, proposals_of(torch.ones(n)))
    assert found.scores.argmax() == n - 1
    assert float(found.scores[-1]) == pytest.approx(0.9)
    assert found.scores[-2] == pytest.approx(float(candidates.scores[-2]) * np.exp(-2))


def test_boxes_without_an_area_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[3, 3, 3, 9]]).repeat(2, 1)  # one pixel wide, as the ends are included
    candidates = Candidates(torch.arange(2), torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64))
    for suppression in ("nms", "soft_nms"):
        kept = suppress(candidates, proposals_of(torch.ones(2), boxes), lower=SUPPRESS[suppression])
        assert kept.scores.tolist() == candidates.scores.tolist()


def test_without_suppression_all_candidates_with_a_score_remain() -> None:
    candidates = Candidates(torch.arange(4), torch.tensor([0.9, 0.8, 0.0, 0.7]), torch.zeros(4, dtype=torch.int64))
    kept = suppress(candidates, proposals_of(torch.ones(4)), lower=SUPPRESS["none"])
    assert kept.rows.tolist() == [0, 1, 3]


def test_cosine_iou_multiplies_by_the_predicted_iou_and_keeps_the_classes() -> None:
    predicted_iou = torch.tensor([0.5, 1.02, 0.9])  # SAM 2 may predict more than 1
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.2, 1.0], [1.0, 1.0]]), dim=1)
    prototypes = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    proposals = proposals_of(predicted_iou, vectors=vectors)
    plain, found = classify(proposals, prototypes), score(proposals, prototypes, Settings(score="cosine_iou"))
    assert found.rows.tolist() == plain.rows.tolist() == [1, 2, 0]
    assert found.classes.equal(plain.classes)
    torch.testing.assert_close(found.scores, plain.scores * torch.tensor([1.0, 0.9, 0.5]))


@pytest.fixture
def bank() -> MemoryBank:
    """Two classes, the first with two positive shots and a negative one."""
    vectors, classes = torch.tensor([[3.0, 0], [0, 1], [5, 5], [-1, 0]]), torch.tensor([0, 0, 0, 1])
    negative = torch.tensor([False, False, True, False])
    found = MemoryBank([Category(1, "a"), Category(2, "b")], vectors, classes, torch.ones(4), negative=negative)
    found.postprocess()
    return found


@pytest.mark.parametrize("kind", ["best_shot", "normalized_mean"])
def test_a_removed_kind_of_prototype_is_refused_and_the_mean_is_not(
    kind: str, arguments: Arguments, refusal: Refusal, tmp_path: Path
) -> None:
    assert Settings(prototype="mean") == Settings()
    with pytest.raises(UserError, match=f"prototype '{kind}' was removed"):
        Settings(prototype=kind)
    assert "was removed" in refusal(*arguments(tmp_path / "out", prototype=kind))


def test_every_setting_changes_the_results_and_all_use_the_same_proposals(arguments: Arguments, tmp_path: Path) -> None:
    cached = ("--model.init_args.cache_dir", tmp_path / "cache")
    main(arguments(tmp_path / "default", *cached))
    entries = sorted((tmp_path / "cache").iterdir())
    assert len(entries) == 5
    main(arguments(tmp_path / "paper", *cached, **{key: getattr(Settings(), key) for key in KEYS}))
    assert results(tmp_path / "paper") == results(tmp_path / "default"), "the defaults are the paper's"
    found = {results(tmp_path / "default")}
    for number, change in enumerate(CHANGES):
        main(arguments(tmp_path / str(number), *cached, **change))
        found.add(results(tmp_path / str(number)))
        assert read_run(tmp_path / str(number), "run").method != OURS
    assert len(found) == 1 + len(CHANGES)
    assert sorted((tmp_path / "cache").iterdir()) == entries
    assert read_run(tmp_path / "paper", "run").method == OURS


def test_best_yaml_is_the_mode_best(arguments: Arguments, tmp_path: Path) -> None:
    keys = yaml.safe_load((CONFIGS / "best.yaml").read_text())["model"]["init_args"]["model_cfg"]["sam2_infer_cfgs"]
    assert keys == MODES["best"]
    settings = asdict(StageSettings(**renamed(keys, OUR_NAMES)))
    assert asdict(Settings(**MODES["best"])).items() <= settings.items()
    words = arguments(tmp_path / "yaml")
    main([*words[:3], "--config", str(CONFIGS / "best.yaml"), *words[3:]])
    main(arguments(tmp_path / "keys", **keys))
    assert results(tmp_path / "yaml") == results(tmp_path / "keys")
    assert read_run(tmp_path / "yaml", "run").method == f"{OURS} (best)"


def test_python_and_the_command_take_the_same_mode(
    photo: Photo, nano_checkpoints: Checkpoints, nano_options: list[str], tmp_path: Path
) -> None:
    words = ["segment", "--reference", photo.reference("a"), "--images", str(photo.path), *nano_options]
    scores = {}
    for mode in ("paper", "best"):
        out = tmp_path / mode
        main([*words, "--mode", mode, "--threshold", "0", "--out", str(out)])
        record = recorded(out, "segment")["settings"]
        assert {key: record[key] for key in KEYS} == {key: getattr(Settings(**MODES[mode]), key) for key in KEYS}
        settings = Settings(points_per_side=8, **MODES[mode])
        segmenter = ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", settings=settings)
        segmenter.add_reference("a", photo.path, photo.mask_path)
        scores[mode] = [one["score"] for one in json.loads(results(out))]
        found = segmenter.segment(photo.path, threshold=0)
        assert scores[mode] == pytest.approx([one.score for one in found], abs=1e-6)
    assert scores["paper"] != scores["best"]


def test_the_scripts_keep_both_modes_apart(tmp_path: Path) -> None:
    def run(**more: str) -> "subprocess.CompletedProcess[str]":
        script, environment = CONFIGS.parent / "scripts" / "coco_fsod.sh", {"NTTT": "echo", "SHOTS": "1", **more}
        return subprocess.run([script], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True)

    paper, best = run(), run(MODE="best")
    folders = {path.name for path in (tmp_path / "runs" / "few_shot_classes").iterdir()}
    assert folders == {"1shot_seed33", "1shot_seed33_best"}
    assert paper.stdout.count("best") == 0
    assert best.stdout.count("configs/best.yaml") == 3
    assert run().returncode == run(MODE="best").returncode == 0, "with the same settings, both go on"
    wrong = run(MODE="worst")
    assert (wrong.returncode, wrong.stderr) == (2, "error: MODE is worst: choose paper, best or fsod_vfm\n")


@pytest.mark.parametrize("change", [{}, {"suppression": "none", "pred_iou_thresh": 0.6}, MODES["best"]])
def test_the_ablation_finds_what_the_method_finds(change: dict[str, Any], bank: MemoryBank) -> None:
    generator, masks = torch.Generator().manual_seed(0), random_rectangles(30, 0)
    boxes, predicted_iou = masks_to_boxes(torch.from_numpy(masks)).long(), torch.rand(30, generator=generator) / 2 + 0.5
    vectors = torch.nn.functional.normalize(torch.randn(30, 2, generator=generator), dim=1)
    proposals = DescribedProposals(predicted_iou, boxes, vectors, Masks.pack(masks).__getitem__)
    settings = Settings(**change, max_instances=10)
    found = list(Scene(7, proposals).results(bank, settings))
    kept = (proposals.predicted_iou > settings.pred_iou_thresh).nonzero()[:, 0]
    chosen = proposals[kept]
    expected = to_coco_records(keep_best(chosen, *classify_and_merge(chosen, bank.prototypes, settings), 10), 7, [1, 2])
    assert len(found) == 10
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == {key: theirs[key] for key in ours}

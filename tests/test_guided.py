"""Guided prompts: which points are chosen, and that runs with them are as repeatable as others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from no_time_to_train import ReferenceSegmenter, Settings
from no_time_to_train.cli import main
from no_time_to_train.errors import UserError
from no_time_to_train.method.beyond import guided
from no_time_to_train.method.beyond.guided import choose_points, levels
from no_time_to_train.method.mask_proposals import point_grid
from no_time_to_train.method.segmenter import Segmenter
from tests.conftest import Photo, stage_arguments
from tests.test_stages import Checkpoints, finish, start

SIZE = 256
WHOLE = ("--prompt_threshold", -1, "--prompt_budget", 1)


def choose(features: Tensor, prototypes: Tensor, side: int, threshold: float = -1.0, budget: float = 1.0) -> list[int]:
    return choose_points(features, prototypes, point_grid(side, SIZE), SIZE, threshold, budget).tolist()


def random_map(side: int, classes: int, dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dim, side, side, generator=generator), torch.randn(classes, dim, generator=generator)


def test_the_points_on_the_similar_patch_are_chosen() -> None:
    features = torch.zeros(2, 4, 4)
    features[0], features[:, 1, 2] = 1, torch.tensor([0.0, 1.0])  # row 1, column 2
    points = point_grid(16, SIZE)
    chosen = points[choose(features, torch.tensor([[0.0, 1.0]]), 16, threshold=0.0)]
    assert len(chosen)
    assert ((chosen // 64).int() == torch.tensor([2, 1])).all(), "x and y of the points are those of the patch"


def test_of_equally_similar_points_those_that_lie_far_apart_come_first() -> None:
    features, prototypes = torch.ones(2, 4, 4), torch.ones(1, 2)
    side = 8
    assert choose(features, prototypes, side, budget=4 / 64) == [0, 4, 32, 36]
    assert choose(features, prototypes, side, budget=6 / 64) == [0, 2, 4, 6, 32, 36], "then the next level, in order"
    assert levels(25).view(5, 5).tolist() == [
        [0, 3, 1, 3, 0],
        [3, 2, 3, 2, 3],
        [1, 3, 1, 3, 1],
        [3, 2, 3, 2, 3],
        [0, 3, 1, 3, 0],
    ]


@pytest.mark.parametrize(("side", "classes"), [(1, 1), (7, 1), (8, 3), (5, 1203)])
def test_the_floor_of_the_threshold_and_the_whole_budget_choose_all_points_and_a_perfect_match_none(
    side: int, classes: int
) -> None:
    features, prototypes = random_map(37, classes)
    assert choose(features, prototypes, side) == list(range(side**2))
    assert choose(features, prototypes, side, threshold=1.0) == []


@pytest.mark.parametrize(("classes", "most"), [(1, 15), (2, 30), (1203, 30)])
def test_the_budget_is_doubled_for_several_classes(classes: int, most: int) -> None:
    features, prototypes = random_map(6, classes)
    chosen = choose(features, prototypes, 10, budget=0.15)
    assert len(chosen) == most
    assert chosen == sorted(set(chosen))


def test_a_class_more_never_makes_a_point_less_similar() -> None:
    features, prototypes = random_map(6, 1203)
    few, all_classes = (set(choose(features, some, 10, threshold=0.2)) for some in (prototypes[:3], prototypes))
    assert few < all_classes


def test_what_all_patches_share_plays_no_role() -> None:
    features, prototypes = random_map(6, 3)
    shared = torch.linspace(5, 9, 16)
    shifted = choose(features + shared[:, None, None], prototypes + shared, 12, threshold=0.1, budget=0.2)
    assert shifted == choose(features, prototypes, 12, threshold=0.1, budget=0.2)
    assert 0 < len(shifted) < 144


@pytest.fixture
def arguments(memory: Path, nano_checkpoints: Checkpoints) -> Callable[..., list[str]]:
    """The command line of the test stage with guided prompts, for the folder of its results."""

    def of(folder: Path, *options: object, memory: Path = memory) -> list[str]:
        words = [str(option) for option in ("--prompts", "guided", *options)]
        words = [word.replace("--prompt", "--model.model_cfg.sam2_infer_cfgs.prompt") for word in words]
        return [*stage_arguments("test", nano_checkpoints, folder), "--ckpt_path", str(memory), *words]

    return of


def results(folder: Path) -> bytes:
    return (folder / "results.json").read_bytes()


def prompts_per_image(folder: Path, stage: str = "test") -> float:
    return json.loads((folder / "run.json").read_text())[stage]["prompts_per_image"]


def test_at_the_floor_the_results_are_those_of_the_grid(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    main(arguments(tmp_path / "grid", "--prompts", "grid"))
    main(arguments(tmp_path / "floor", *WHOLE))
    main(arguments(tmp_path / "guided"))
    assert results(tmp_path / "floor") == results(tmp_path / "grid") != results(tmp_path / "guided")
    assert prompts_per_image(tmp_path / "floor") == prompts_per_image(tmp_path / "grid") == 64
    assert 0 < prompts_per_image(tmp_path / "guided") <= 0.3 * 64


def test_where_nothing_is_similar_there_are_no_instances(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    main(arguments(tmp_path, "--prompt_threshold", 1))
    assert json.loads(results(tmp_path)) == []
    assert prompts_per_image(tmp_path) == 0


def test_a_run_that_resumes_and_one_of_two_processes_give_the_same(
    arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(arguments(tmp_path / "one"))
    finish(start(arguments(tmp_path / "two", "--trainer.devices", 2, "--trainer.strategy", "ddp")))
    describe, calls = Segmenter.describe, []

    def stopping(self: Segmenter, *image: object) -> object:
        calls.append(image)
        if len(calls) == 3:
            raise UserError("stop")
        return describe(self, *image)  # type: ignore[arg-type]  # what it was given

    monkeypatch.setattr(Segmenter, "describe", stopping)
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "resumed"))
    main(arguments(tmp_path / "resumed"))
    assert len(calls) == 6, "two of the five images were done"
    assert results(tmp_path / "resumed") == results(tmp_path / "two") == results(tmp_path / "one")
    assert prompts_per_image(tmp_path / "resumed") == prompts_per_image(tmp_path / "one")


def test_a_cache_entry_is_used_with_the_same_prototypes_and_numbers_only(
    arguments: Callable[..., list[str]], memory: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cached = ("--model.init_args.cache_dir", cache)
    other = tmp_path / "other.ckpt"
    bank = torch.load(memory, weights_only=True)
    bank["prototypes"] = bank["prototypes"].flip(1)
    torch.save(bank, other)
    main(arguments(tmp_path / "first", *cached))
    entries = set(cache.iterdir())
    assert len(entries) == 5
    main(arguments(tmp_path / "second", *cached))
    assert set(cache.iterdir()) == entries
    assert results(tmp_path / "second") == results(tmp_path / "first")
    assert prompts_per_image(tmp_path / "second") == prompts_per_image(tmp_path / "first")
    runs = [arguments(tmp_path / "other", *cached, memory=other)]
    changes = [("--prompts", "grid"), ("--prompt_threshold", 0.1), ("--prompt_budget", 0.1)]
    runs += [arguments(tmp_path / str(change), *cached, *change) for change in changes]
    for count, run in enumerate(runs, start=2):
        main(run)
        assert len(set(cache.iterdir())) == 5 * count
    main(arguments(tmp_path / "grid", *cached, "--prompts", "grid", memory=other))
    assert len(set(cache.iterdir())) == 5 * len(runs) + 5, "those of the grid do not depend on the prototypes"


def test_points_are_chosen_in_float32(monkeypatch: pytest.MonkeyPatch, photo: Photo) -> None:
    autocast: list[bool] = []

    def recorded(*arguments: object) -> Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return choose_points(*arguments)  # type: ignore[arg-type]  # what it was given

    monkeypatch.setattr(guided, "choose_points", recorded)
    segmenter = ReferenceSegmenter.from_pretrained(
        "nano", device="cpu", settings=Settings(points_per_side=8, prompts="guided")
    )
    segmenter.add_reference("pattern", photo.path, photo.mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = segmenter.segment(photo.path)
    assert autocast == [False]
    assert 0 < found.detections.prompts <= 0.15 * 64


def test_segment_takes_guided_prompts_and_records_their_number(
    photo: Photo, nano_checkpoints: Checkpoints, tmp_path: Path
) -> None:
    networks = ["--sam2", nano_checkpoints[0], "--dinov2", nano_checkpoints[1], "--device", "cpu"]
    words = ["--reference", f"a:{photo.path}:mask={photo.mask_path}", "--images", photo.path, "--points-per-side", 8]
    main(["segment", *map(str, [*words, *networks, "--prompts", "guided", "--out", tmp_path / "out"])])
    assert 0 < prompts_per_image(tmp_path / "out", "segment") <= 0.15 * 64
    assert json.loads((tmp_path / "out" / "run.json").read_text())["segment"]["settings"]["prompts"] == "guided"


@pytest.mark.slow
def test_guided_prompts_keep_the_ap_of_the_grid_with_a_fraction_of_the_points() -> None:
    from no_time_to_train.demo.run_demo import POINTS_PER_SIDE
    from timing.guided import measure_seed

    seeds = [measure_seed(seed, images=60) for seed in (1, 2, 3)]
    for several, most in ((False, 0.15), (True, 0.35)):
        grid, guided = ([seed[name, several] for seed in seeds] for name in ("grid", "guided"))
        assert sum(one["AP"] for one in guided) >= sum(one["AP"] for one in grid) - 3 * 0.5
        assert all(one["points"] <= most * POINTS_PER_SIDE**2 for one in guided)
        coarse = [seed["grid, half as dense", several] for seed in seeds]
        assert sum(one["AR small"] for one in guided) > sum(one["AR small"] for one in coarse)

"""Guided prompts: which points are chosen, and that runs with them are as repeatable as others."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from no_time_to_train.cli import main
from no_time_to_train.method.beyond import guided
from no_time_to_train.method.beyond.guided import choose_points, levels
from no_time_to_train.method.mask_proposals import point_grid
from tests.conftest import Arguments, Patch, Photo, nano_segmenter, recorded, results

SIZE = 256


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
    assert choose(features, prototypes, 8, budget=4 / 64) == [0, 4, 32, 36]
    assert choose(features, prototypes, 8, budget=6 / 64) == [0, 2, 4, 6, 32, 36], "then the next level, in order"
    corner, odd, middle = [0, 3, 1, 3, 0], [3, 2, 3, 2, 3], [1, 3, 1, 3, 1]
    assert levels(25).view(5, 5).tolist() == [corner, odd, middle, odd, corner]


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


def test_at_the_floor_the_results_are_those_of_the_grid(arguments: Arguments, tmp_path: Path) -> None:
    main(arguments(tmp_path / "grid", prompts="grid"))
    main(arguments(tmp_path / "floor", prompts="guided", prompt_threshold=-1, prompt_budget=1))
    main(arguments(tmp_path / "guided", prompts="guided"))
    assert results(tmp_path / "floor") == results(tmp_path / "grid") != results(tmp_path / "guided")
    prompts = {name: recorded(tmp_path / name)["prompts_per_image"] for name in ("floor", "grid", "guided")}
    assert prompts["floor"] == prompts["grid"] == 64
    assert 0 < prompts["guided"] <= 0.3 * 64


def test_points_are_chosen_in_float32(monkeypatch: Patch, photo: Photo) -> None:
    autocast: list[bool] = []

    def recorded(*arguments: object) -> Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return choose_points(*arguments)  # type: ignore[arg-type]  # what it was given

    monkeypatch.setattr(guided, "choose_points", recorded)
    segmenter = nano_segmenter(prompts="guided")
    segmenter.add_reference("pattern", photo.path, photo.mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = segmenter.segment(photo.path)
    assert autocast == [False]
    assert 0 < found.detections.prompts <= 0.15 * 64

"""Parts of the method and of the data files that the golden outputs do not cover."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_image import encode_picture
from no_time_to_train.errors import UserNotice
from no_time_to_train.method.classify import best_classes
from no_time_to_train.method.fill_memory import crop_window
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.settings import Settings
from no_time_to_train.networks.build import build_sam2
from no_time_to_train.visual.memory_pictures import kmeans, principal_components
from tests.conftest import Patch

CATEGORIES = [Category(3, "disc"), Category(7, "star")]


def test_joining_1000_classes_compares_none_of_them_twice(monkeypatch: Patch) -> None:
    banks = [MemoryBank.empty([Category(number, f"{letter}{number}") for number in range(500)], 2) for letter in "ab"]
    for bank in banks:
        bank.vectors, bank.class_index, bank.weights = torch.rand(500, 2), torch.arange(500), torch.ones(500)
        bank.__post_init__()
        bank.sources, bank.crops, bank.images = ([None] * 500 for _ in range(3))
    compared = 0

    def counted(ours: Category, theirs: object) -> bool:
        nonlocal compared
        compared += 1
        return isinstance(theirs, Category) and (ours.id, ours.name) == (theirs.id, theirs.name)

    monkeypatch.setattr(Category, "__eq__", counted)
    joined = MemoryBank.join(banks)
    assert [category.id for category in joined.categories] == [*range(1000)]
    assert compared < 2000


def test_ids_of_joined_classes_fit_a_memory_file(tmp_path: Path) -> None:
    banks = [MemoryBank.empty([Category(2**63 - 1, name)], 2) for name in "ab"]
    for bank in banks:
        bank.add(0, torch.rand(2), torch.tensor(1.0))
    save_memory(MemoryBank.join(banks), tmp_path / "joined.memory")
    assert load_memory(tmp_path / "joined.memory").categories == [Category(1, "b"), Category(2**63 - 1, "a")]


def test_a_memory_of_version_0_1_is_read(tmp_path: Path) -> None:
    """Format 1 pads the shots of every class to the same number, and keeps references and pictures by category id."""
    vectors, weights = torch.rand(2, 3, 4), torch.tensor([[5.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    shots = {3: [{"img_id": 1, "ann_ids": [10]}, {"img_id": 2, "ann_ids": [20]}], 7: [{"img_id": 9, "ann_ids": [90]}]}
    picture = encode_picture(torch.zeros(3, 2, 2), torch.ones(1, 2, 2))
    content = {
        "format": "no-time-to-train memory bank 1",
        "categories": [{"id": 3, "name": "disc"}, {"id": 7, "name": "star"}],
        "vectors": vectors,
        "weights": weights,
        "prototypes": torch.rand(2, 4),
        "made_with": {"encoder": "dinov2_small"},
        "references": shots,
        "crops": {7: [picture]},
    }
    torch.save(content, tmp_path / "old.ckpt")
    bank = load_memory(tmp_path / "old.ckpt")
    assert bank.categories == CATEGORIES
    assert torch.equal(bank.vectors, torch.stack([vectors[0, 0], vectors[0, 2], vectors[1, 1]]))
    assert bank.class_index.tolist() == [0, 0, 1]
    assert bank.weights.tolist() == [5, 2, 3]
    assert torch.equal(bank.prototypes, content["prototypes"])  # type: ignore[arg-type]
    assert bank.sources == [*shots[3], *shots[7]]
    assert bank.crops[:2] == [None, None]
    assert torch.equal(bank.crops[2], picture)


def test_a_memory_is_the_same_after_writing_and_reading_and_at_lvis_size_under_60_megabytes(tmp_path: Path) -> None:
    categories = [Category(index, f"class {index}") for index in range(1203)]
    classes = torch.arange(1203).repeat_interleave(10)
    sources = [{"img_id": shot, "ann_ids": [shot % 10]} for shot in range(12030)]
    bank = MemoryBank(categories, torch.rand(12030, 1024), classes, torch.ones(12030), sources=sources)
    bank.made_with = {"encoder": "dinov2_large"}
    bank.postprocess()
    save_memory(bank, tmp_path / "memory.ckpt")
    assert (tmp_path / "memory.ckpt").stat().st_size < 60e6
    loaded = load_memory(tmp_path / "memory.ckpt")
    assert (loaded.categories, loaded.made_with, loaded.sources) == (bank.categories, bank.made_with, bank.sources)
    assert torch.equal(loaded.vectors, bank.vectors)
    assert torch.equal(loaded.prototypes, bank.prototypes)  # type: ignore[arg-type]
    tensors = [value for value in vars(loaded).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 60e6


def test_a_crop_window_is_clipped_at_the_border() -> None:
    assert crop_window([5.5, 10, 20, 40.9], height=100, width=60, context_ratio=0.2) == (0, 6, 39, 54)


def test_cls_num_per_mask_keeps_the_best_classes() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.8, 0.1, -1.0]]), dim=1)
    prototypes = 5 * torch.eye(4)
    scores, classes = best_classes(vectors, prototypes, classes_per_mask=2)
    assert classes.tolist() == [[0, 1]]
    torch.testing.assert_close(scores, vectors[:, :2])
    scores, classes = best_classes(vectors, prototypes, classes_per_mask=-1)
    assert classes[0, :2].tolist() == [0, 1]
    assert (scores[0, 2:] == 0).all()  # 0.1 is below 0.6 times the best; negative cosines are clamped
    assert scores[0, 1] > 0


def test_kmeans_finds_separate_groups_and_pca_their_axis() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.eye(5)[torch.arange(200) % 3] + 0.05 * torch.randn(200, 5, generator=generator)
    centers = kmeans(groups, 3)
    assert sorted((centers @ torch.eye(5)[:3].T).argmax(dim=1).tolist()) == [0, 1, 2]
    line = torch.linspace(-1, 1, 50)[:, None] * torch.tensor([[0.0, 3, 4]]) + 7
    mean, components = principal_components(line, 1)
    torch.testing.assert_close(mean, torch.full((3,), 7.0))
    torch.testing.assert_close(components.abs(), torch.tensor([[0.0, 0.6, 0.8]]))


def test_a_full_gpu_halves_the_prompts_at_once_with_one_notice_and_the_same_result(
    monkeypatch: Patch, nano_checkpoints: tuple[Path, Path]
) -> None:
    settings = Settings(points_per_side=4, points_per_batch=16)
    proposer = MaskProposer(build_sam2("sam2_nano", nano_checkpoints[0]), settings)
    image = torch.rand(3, proposer.size, proposer.size, generator=torch.Generator().manual_seed(0))
    expected = proposer(image)
    decode = proposer.decoder.forward

    def small_gpu(points: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        if len(points) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(points, **options)

    monkeypatch.setattr(proposer.decoder, "forward", small_gpu)
    with pytest.warns(UserNotice, match="prompts at once") as notices:
        found = proposer(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposer(image)
    assert [str(notice.message).split()[8] for notice in notices] == ["8", "4"]
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.predicted_iou, expected.predicted_iou)

"""Parts of the method and of the data files that the golden outputs do not cover."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import Tensor

from no_time_to_train.cli import main
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.coco_results import to_coco_records
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_pictures import encode_crop
from no_time_to_train.data.reference_sets import (
    check_references,
    coco_to_references,
    read_references,
    sample_references,
    write_references,
)
from no_time_to_train.errors import UserError, UserNotice
from no_time_to_train.method.classify import best_classes, classify
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.encoder import Encoder
from no_time_to_train.method.fill_memory import crop_window, patch_weights
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.method.packed_masks import PackedMasks
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.prototypes import Prototypes
from no_time_to_train.method.segmenter import Segmenter, describe_proposals
from no_time_to_train.method.settings import Settings
from no_time_to_train.method.soft_merge import soft_merge
from no_time_to_train.method.suppress import suppress
from no_time_to_train.networks.build import build_dinov2, build_sam2
from no_time_to_train.visual.token_analysis import kmeans, principal_components
from tests.conftest import DATA

CATEGORIES = [Category(3, "disc"), Category(7, "star")]


def test_a_prototype_is_the_mean_of_the_shots_of_its_class() -> None:
    bank = MemoryBank.empty(CATEGORIES, dim=2)
    bank.add(1, torch.tensor([2.0, 0.0]), torch.tensor(1.0))
    bank.add(0, torch.tensor([1.0, 0.0]), torch.tensor(5.0))
    bank.add(1, torch.tensor([0.0, 4.0]), torch.tensor(3.0))
    bank.postprocess()
    assert bank.counts.tolist() == [1, 2]
    assert bank.prototypes is not None
    assert bank.prototypes.tolist() == [[1, 0], [1, 2]]
    assert bank.class_averages.tolist() == [[1, 0], [0.5, 3]]


def test_a_class_without_references_is_named() -> None:
    bank = MemoryBank.empty(CATEGORIES, dim=2)
    bank.add(0, torch.ones(2), torch.tensor(1.0))
    with pytest.raises(UserError, match="'star'"):
        bank.postprocess()


def test_a_memory_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    bank = MemoryBank.empty(CATEGORIES, dim=2)
    for index in range(2):
        bank.add(index, torch.rand(2), torch.tensor(1.0), source={"img_id": index, "ann_ids": [2]})
    bank.made_with = {"encoder": "dinov2_small"}
    bank.postprocess()
    save_memory(bank, tmp_path / "memory.ckpt")
    twin = load_memory(tmp_path / "memory.ckpt")
    assert (twin.categories, twin.made_with, twin.sources) == (bank.categories, bank.made_with, bank.sources)
    assert torch.equal(twin.vectors, bank.vectors)
    assert torch.equal(twin.prototypes, bank.prototypes)  # type: ignore[arg-type]


def test_a_memory_of_version_0_1_is_read(tmp_path: Path) -> None:
    """Format 1 pads the shots of every class to the same number, and keeps references and pictures by category id."""
    vectors, weights = torch.rand(2, 3, 4), torch.tensor([[5.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    shots = {3: [{"img_id": 1, "ann_ids": [10]}, {"img_id": 2, "ann_ids": [20]}], 7: [{"img_id": 9, "ann_ids": [90]}]}
    picture = encode_crop(torch.zeros(3, 2, 2), torch.ones(1, 2, 2))
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


def test_a_memory_at_lvis_size_is_under_60_megabytes(tmp_path: Path) -> None:
    categories = [Category(index, f"class {index}") for index in range(1203)]
    classes = torch.arange(1203).repeat_interleave(10)
    sources = [{"img_id": shot, "ann_ids": [shot % 10]} for shot in range(12030)]
    bank = MemoryBank(categories, torch.rand(12030, 1024), classes, torch.ones(12030), sources=sources)
    bank.postprocess()
    save_memory(bank, tmp_path / "memory.ckpt")
    assert (tmp_path / "memory.ckpt").stat().st_size < 60e6
    twin = load_memory(tmp_path / "memory.ckpt")
    tensors = [value for value in vars(twin).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 60e6


def test_an_instance_thinner_than_the_sampled_pixels_still_has_weight() -> None:
    mask = torch.zeros(1, 518, 518)
    mask[0, :, 15] = 1  # torch's nearest takes columns 0, 14, 28, ...
    weights = patch_weights(mask, 518, 37).view(37, 37)
    assert weights[:, 1].min() > 0
    assert (weights > 0).sum() == 37


def test_a_crop_window_is_clipped_at_the_border() -> None:
    assert crop_window([5.5, 10, 20, 40.9], height=100, width=60, context_ratio=0.2) == (0, 6, 39, 54)


def test_cls_num_per_mask_keeps_the_best_classes() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.8, 0.1, -1.0]]), dim=1)
    prototypes = 5 * torch.eye(4)
    scores, classes = best_classes(vectors, Prototypes.one_per_class(prototypes), classes_per_mask=2)
    assert classes.tolist() == [[0, 1]]
    torch.testing.assert_close(scores, vectors[:, :2])
    scores, classes = best_classes(vectors, Prototypes.one_per_class(prototypes), classes_per_mask=-1)
    assert classes[0, :2].tolist() == [0, 1]
    assert (scores[0, 2:] == 0).all()  # 0.1 is below 0.6 times the best; negative cosines are clamped
    assert scores[0, 1] > 0


def square(x: int, y: int, side: int) -> Tensor:
    """Logits of a square region on a 16x16 map."""
    logits = torch.full((16, 16), -1.0)
    logits[y : y + side, x : x + side] = 1
    return logits


def test_suppression_ranks_by_predicted_iou_within_each_class() -> None:
    features = torch.zeros(2, 4, 4)
    features[0, :, :2], features[1, :, 2:] = 1, 1  # the left half looks like class 0, the right half like class 1
    logits = torch.stack([square(0, 0, 7), square(0, 0, 8), square(10, 4, 5), square(0, 0, 0)])
    proposals = describe_proposals(Proposals(logits, torch.tensor([0.6, 0.9, 0.7, 0.99])), features, 16, 16)
    candidates = suppress(classify(proposals, Prototypes.one_per_class(torch.eye(2))), proposals)
    assert candidates.classes.tolist() == [0, 1]
    assert candidates.rows.tolist() == [1, 2]


def test_soft_merging_lowers_scores_of_masks_covered_by_better_ones_of_their_class() -> None:
    regions = torch.stack([square(0, 0, 8), square(0, 0, 4), square(4, 4, 8), square(0, 0, 8)]) > 0
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0], [1, 1], [1, 0]]), dim=1)
    scores = soft_merge(torch.ones(4), torch.tensor([0, 0, 0, 1]), PackedMasks.pack(regions.numpy()), vectors)
    np.testing.assert_allclose(scores, [1, 0, (1 - 0.25 * 0.5**0.5) ** 0.5, 1], rtol=1e-6)


class NoProposals(torch.nn.Module):
    """A proposer that proposes nothing."""

    def forward(self, image: Tensor) -> Proposals:
        return Proposals(torch.zeros(0, 16, 16), torch.zeros(0))


class FlatEncoder(torch.nn.Module):
    """An encoder with the same feature everywhere."""

    def feature_map(self, images: Tensor) -> Tensor:
        return torch.ones(1, 2, 4, 4)


def test_an_image_without_proposals_has_no_instances() -> None:
    segmenter = Segmenter(FlatEncoder(), NoProposals(), Prototypes.one_per_class(torch.eye(2)), Settings())  # type: ignore[arg-type]
    detections = segmenter.segment(torch.zeros(3, 64, 64), 40, 50)
    assert len(detections) == 0
    assert to_coco_records(detections, 1, [3, 7]) == []


def test_results_are_coco_records() -> None:
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 5:10, 3:20] = True
    detections = Detections(masks, torch.tensor([[3, 5, 19, 9]]), torch.tensor([0.5]), torch.tensor([1]))
    (record,) = to_coco_records(detections, 42, [3, 7])
    assert (record["image_id"], record["category_id"], record["bbox"]) == (42, 7, [3, 5, 16, 4])
    assert record["segmentation"]["size"] == [20, 30]


def annotations(*entries: dict[str, Any]) -> dict[str, Any]:
    """A COCO file with these annotations, which are good references except for the values given."""
    base = {"bbox": [20, 20, 40, 40], "iscrowd": 0, "category_id": 3}
    images = [{"id": image_id, "width": 100, "height": 100, "file_name": f"{image_id}.png"} for image_id in range(9)]
    return {
        "images": images,
        "categories": [{"id": 3, "name": "disc"}],
        "annotations": [{**base, "id": index, "image_id": index, **entry} for index, entry in enumerate(entries)],
    }


def sampled(tmp_path: Path, data: dict[str, Any], shots: int, **options: bool) -> list[int]:
    """The ids of the annotations that are sampled from a COCO file."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data))
    coco = read_coco(path)
    references = sample_references(coco, select_categories(coco, path), shots, seed=1, **options)
    return sorted(shot["ann_ids"][0] for shot in references[3])


def test_sampling_skips_bad_references(tmp_path: Path) -> None:
    data = annotations(
        {},
        {"iscrowd": 1},
        {"bbox": [20, 20, 31, 40]},
        {"bbox": [9, 20, 40, 40]},
        {"bbox": [20, 20, 71, 40]},
        {"image_id": 0},
        {"isimpossible": 1},
    )
    assert sampled(tmp_path, data, 2) in ([0, 6], [5, 6])
    with pytest.raises(UserError, match="has 1 instances"):
        sampled(tmp_path, data, 2, skip_impossible=True)


def test_sampling_for_lvis_fills_up(tmp_path: Path) -> None:
    small = {"bbox": [20, 20, 5, 5]}
    assert sampled(tmp_path, annotations({}, small), 3, fill_up=True) == [0, 0, 0]
    assert sampled(tmp_path, annotations(small, small), 3, fill_up=True) in ([0, 0, 1], [0, 1, 1])


def test_sampling_for_lvis_takes_the_first_others_of_a_class_without_good_references(tmp_path: Path) -> None:
    """They may be in the same image, and all are candidates, crowds too."""
    small: dict[str, Any] = {"bbox": [20, 20, 5, 5], "image_id": 4}
    entries: list[dict[str, Any]] = [small, small, {"iscrowd": 1, "image_id": 4}, small, {**small, "image_id": 5}]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations(*entries)))
    coco = read_coco(path)
    for seed in range(9):
        expected = list(range(5))
        random.Random(seed).shuffle(expected)
        references = sample_references(coco, select_categories(coco, path), 3, seed, fill_up=True)
        assert [shot["ann_ids"] for shot in references[3]] == [[ann_id] for ann_id in expected[:3]]
    references = sample_references(coco, select_categories(coco, path), 7, 0, fill_up=True)
    found = [shot["ann_ids"][0] for shot in references[3]]
    assert sorted(found[:5]) == list(range(5))
    assert found[5:] == found[:2]


def test_references_by_rule_prefer_large_objects_that_touch_no_border(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    entries = []
    for image_id in range(9):
        x, y = rng.choice([0, 5, 12, 15, 18, 20], 2).tolist()
        w, h = rng.integers(28, 66, 2).tolist()
        entries += [{"image_id": image_id, "bbox": [x, y, w, h], "area": w * h}] * 2
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations(*entries)))
    coco = read_coco(path)
    references = sample_references(coco, select_categories(coco, path), 2, 0, heuristics=True)

    areas = [entry["area"] for entry in entries]
    low, high = np.quantile(areas, 0.25), np.quantile(areas, 0.75)
    scores = []
    for ann_id, entry in enumerate(entries):
        x, y, w, h = entry["bbox"]
        inside = x > 0 and y > 0 and x + w < 100 and y + h < 100
        group = 2 if w * h >= high else 1 if w * h >= low else 0
        scores.append((-(1000 * inside + 100 * group + w * h / max(areas)), ann_id))
    good = [ann_id for _, ann_id in sorted(scores) if min(entries[ann_id]["bbox"][:2]) >= 10]
    good = [i for i in good if min(entries[i]["bbox"][2:]) >= 32 and sum(entries[i]["bbox"][::2]) <= 90]
    good = [i for i in good if sum(entries[i]["bbox"][1::2]) <= 90]
    assert [shot["ann_ids"][0] for shot in references[3]] == good[::2][:2]  # the twins are in the same images
    assert references == sample_references(coco, select_categories(coco, path), 2, 1, heuristics=True)


def test_the_sets_of_cdfsod_as_published_repeat_the_first_instance_of_an_image(tmp_path: Path) -> None:
    data = annotations(*[{"image_id": image_id} for image_id in (4, 5, 4, 6, 4)], *[{"category_id": 7}] * 2)
    data["categories"] += [{"id": 7, "name": "star"}, {"id": 8, "name": "none"}]
    data["annotations"][5]["image_id"], data["annotations"][6]["image_id"] = 1, 2
    path, out = tmp_path / "5_shot.json", tmp_path / "refs.pkl"
    path.write_text(json.dumps(data))
    main(["coco-to-references", str(path), str(out), "5", "--as-published"])
    star = [{"img_id": 1, "ann_ids": [5]}, {"img_id": 2, "ann_ids": [6]}]
    random.seed(42)
    expected = {
        3: [{"img_id": 4, "ann_ids": [0, 2, 4]}] * 3 + [{"img_id": i, "ann_ids": [a]} for i, a in ((5, 1), (6, 3))],
        7: star + random.choices(star, k=3),
    }
    assert read_references(out) == expected
    main(["coco-to-references", str(path), str(out), "4", "--as-published"])
    assert [len(shots) for shots in read_references(out).values()] == [5, 4]


def test_a_class_with_fewer_shots_than_asked_for_is_used_with_a_notice() -> None:
    coco = read_coco(DATA / "references.json")
    categories = select_categories(coco, "references.json")
    references = coco_to_references(coco)
    references[7].pop()
    with pytest.warns(UserNotice, match=r"fewer shots than memory_length \(2\).*: \S+ \(1\)$"):
        chosen = check_references(references, coco, "references.json", categories, shots=2)
    assert [len(shots) for shots in chosen.values()] == [2, 1, 2]
    del references[7]
    with pytest.raises(UserError, match="has no shots of class"):
        check_references(references, coco, "references.json", categories, shots=2)


def lvis_file(tmp_path: Path) -> COCO:
    categories = [{"id": i, "name": name, "frequency": f} for i, (name, f) in enumerate(zip("abc", "rcf", strict=True))]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps({"images": [], "categories": categories}))
    return read_coco(path)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        *[(f"lvis{part}", "abc") for part in ("", "_minival")],
        *[(f"lvis{part}_rare", "a") for part in ("", "_minival")],
        ("lvis_minival_common", "b"),
        ("lvis_minival_frequent", "c"),
    ],
)
def test_lvis_splits_have_the_authors_names(tmp_path: Path, split: str, names: str) -> None:
    assert "".join(one.name for one in select_categories(lvis_file(tmp_path), "lvis.json", split)) == names
    with pytest.raises(UserError, match=r"did you mean .*'lvis_minival_rare'"):
        select_categories(lvis_file(tmp_path), "lvis.json", "lvis_minval_rare")


def test_coco_is_the_split_of_its_80_classes() -> None:
    coco = read_coco(DATA / "sampling" / "instances.json")
    assert select_categories(coco, "x", "coco") == select_categories(coco, "x", "default_classes")


def test_a_split_wins_over_names_with_a_notice_where_they_differ(tmp_path: Path) -> None:
    coco = lvis_file(tmp_path)
    with pytest.warns(UserNotice, match="those of class_split are used"):
        assert [one.name for one in select_categories(coco, "x", "lvis_rare", "b,c")] == ["a"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [one.name for one in select_categories(coco, "x", "lvis_rare", ["a"])] == ["a"]


def test_underscores_stand_for_spaces_in_names_of_classes() -> None:
    coco = read_coco(DATA / "sampling" / "instances.json")
    found = select_categories(coco, "x", cat_names="traffic_light, stop sign")
    assert [one.name for one in found] == ["traffic light", "stop sign"]


def test_names_of_data_sets_choose_the_file_and_the_seed_is_42(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "lvis_minival_rare": "data/lvis/annotations/lvis_v1_train.json",
        "pascal_voc_split_2": "data/pascal-voc/annotations/voc0712_trainval_masks.json",
        "coco": "data/coco/annotations/instances_train2017.json",
    }
    for split, file in files.items():
        with pytest.raises(SystemExit):
            main(["sample-references", "--dataset", split, "--n-shot", "1", "--out", "refs.json"])
        assert f"file not found: {file}" in capsys.readouterr().err
    target = tmp_path / files["coco"]
    target.parent.mkdir(parents=True)
    target.write_bytes((DATA / "sampling" / "instances.json").read_bytes())
    sampling = ["sample-references", "--dataset", "few_shot_classes", "--n-shot", "2"]
    main([*sampling, "--out", "default.json"])
    main([*sampling, "--seed", "42", "--out", "seed42.json"])
    assert Path("default.json").read_text() == Path("seed42.json").read_text()


def test_a_reference_set_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    coco = read_coco(DATA / "references.json")
    references = coco_to_references(coco)
    assert [len(shots) for shots in references.values()] == [2, 2, 2]
    for name in ("refs.json", "refs.pkl", "refs.pickle"):
        write_references(references, tmp_path / name)
        assert read_references(tmp_path / name) == references


def test_an_entry_with_several_annotations_uses_the_first() -> None:
    coco = read_coco(DATA / "references.json")
    categories = select_categories(coco, "references.json", cat_names="disc")
    references = check_references(
        {3: [{"img_id": 101, "ann_ids": [1, 2]}]}, coco, "references.json", categories, shots=None
    )
    assert references[3][0]["ann_ids"][0] == 1


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
    monkeypatch: pytest.MonkeyPatch, nano_checkpoints: tuple[Path, Path]
) -> None:
    proposer = MaskProposer(
        build_sam2("sam2_nano", nano_checkpoints[0]), Settings(points_per_side=4, points_per_batch=16)
    )
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(value: float, nano_checkpoints: tuple[Path, Path]) -> None:
    vit = build_dinov2("dinov2_nano", 224, checkpoint=nano_checkpoints[1])
    vit.norm.bias.data[0] = value
    proposer = MaskProposer(build_sam2("sam2_nano", nano_checkpoints[0]), Settings(points_per_side=2))
    segmenter = Segmenter(Encoder(vit), proposer, Prototypes.one_per_class(torch.ones(2, vit.embed_dim)))
    with pytest.raises(UserError, match="DINOv2 gives values that are not finite"):
        segmenter.segment(torch.rand(3, 256, 256), 30, 40)

"""Negative references: in the method, in memories, in the stages, in Python and in ``segment``."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from no_time_to_train import ReferenceSegmenter, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.memory_files import load_memory, save_memory
from no_time_to_train.data.reference_sets import coco_to_references, read_references, write_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.evaluation import evaluate
from no_time_to_train.lightning_module import STAGES
from no_time_to_train.method.beyond.negatives import Negatives
from no_time_to_train.method.classify import best_classes
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.networks.registry import default_checkpoint
from tests.attacks.test_cases import cases_in
from tests.conftest import Capture, Checkpoints, Photo, Refusal, nano_segmenter, stage_arguments, write_picture

NANO = default_checkpoint("sam2_nano"), default_checkpoint("dinov2_nano")
CATEGORIES = [Category(3, "disc"), Category(7, "star")]

#: Two patterns that the nano networks confuse.
CHECKS, DOTS = (next(one for one in NOVEL_CLASSES if one.name == name) for name in ("checks", "dots"))


def bank_with_negatives() -> MemoryBank:
    """Two classes with two positive shots each; the second class has two negatives, one before its positives."""
    bank = MemoryBank.empty(CATEGORIES, dim=3)
    for class_index, vector, negative in (
        (1, [0.0, 1.0, 3.0], True),
        (0, [4.0, 0.0, 0.0], False),
        (1, [0.0, 2.0, 0.0], False),
        (0, [2.0, 2.0, 0.0], False),
        (1, [0.0, 4.0, 2.0], False),
        (1, [1.0, 0.0, 3.0], True),
    ):
        source = {"img_id": len(bank), "ann_ids": [1]}
        bank.add(class_index, torch.tensor(vector), torch.tensor(1.0 + len(bank)), source, negative=negative)
    bank.postprocess()
    return bank


def scores_by_hand(vectors: Tensor, prototypes: Tensor, negatives: dict[int, list[Tensor]]) -> list[list[float]]:
    """s+ * exp(-max(0, s- - s+) / 0.8) of each vector and class, one number at a time."""

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    rows = []
    for vector in vectors:
        row = []
        for index, prototype in enumerate(prototypes):
            score = max(0.0, cosine(vector, prototype))
            if index in negatives:
                nearest = max(cosine(vector, negative) for negative in negatives[index])
                score *= math.exp(-max(0.0, nearest - score) / 0.8)
            row.append(score)
        rows.append(row)
    return rows


@pytest.mark.parametrize("classes_per_mask", [1, 2, 5])
def test_a_negative_lowers_the_scores_of_its_class_before_the_best_class_is_chosen(classes_per_mask: int) -> None:
    random = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(999, 6, generator=random), dim=1)
    prototypes, shots = torch.randn(5, 6, generator=random), torch.randn(4, 6, generator=random)
    classes = torch.tensor([2, 0, 2, 4])
    scores, labels = best_classes(vectors, prototypes, classes_per_mask, Negatives(shots, classes).lower)
    negatives = {0: [shots[1]], 2: [shots[0], shots[2]], 4: [shots[3]]}
    expected = torch.tensor(scores_by_hand(vectors, prototypes, negatives))
    torch.testing.assert_close(scores, expected.sort(dim=1, descending=True).values[:, :classes_per_mask])
    torch.testing.assert_close(expected.gather(1, labels), scores)
    assert (labels[:, 0] != best_classes(vectors, prototypes)[1][:, 0]).any(), "some mask takes another class"


def test_prototypes_and_counts_come_from_the_positive_shots() -> None:
    bank = bank_with_negatives()
    assert bank.counts.tolist() == [2, 2]
    assert bank.negative_counts.tolist() == [0, 2]
    assert bank.prototypes.tolist() == [[3, 1, 0], [0, 3, 1]]
    assert repr(bank) == "MemoryBank({disc: 2, star: 2 and 2 negative})"
    only_negative = MemoryBank.empty(CATEGORIES[:1], dim=2)
    only_negative.add(0, torch.ones(2), torch.tensor(1.0), negative=True)
    with pytest.raises(UserError, match="'disc'"):
        only_negative.postprocess()


def test_negatives_survive_files_joining_renumbering_and_removing(tmp_path: Path) -> None:
    bank = bank_with_negatives()
    save_memory(bank, tmp_path / "a.memory")
    other = MemoryBank.empty([Category(3, "star")], dim=3)
    other.add(0, torch.tensor([5.0, 5.0, 5.0]), torch.tensor(1.0))
    other.add(0, torch.tensor([6.0, 6.0, 6.0]), torch.tensor(1.0), negative=True)
    joined = MemoryBank.join([load_memory(tmp_path / "a.memory"), other]).renumber({"star": 1, "disc": 2})
    assert [category.name for category in joined.categories] == ["star", "disc"]
    negatives = joined.negatives
    assert negatives.vectors.tolist() == [[0, 1, 3], [1, 0, 3], [6, 6, 6]]
    assert negatives.classes.tolist() == [0, 0, 0]
    assert [source and source["img_id"] for source in joined.sources] == [0, 2, 4, 5, None, None, 1, 3]
    assert joined.remove(["star"]).negatives is None


def test_a_memory_without_negatives_is_written_as_before(tmp_path: Path) -> None:
    bank = bank_with_negatives().remove(["star"])
    save_memory(bank, tmp_path / "a.memory")
    assert "negative" not in torch.load(tmp_path / "a.memory", weights_only=True)
    assert bank.negatives is None


# The stages


class Scenes:
    """Drawn scenes of checks and dots, and the stages that look for checks in them, with the trained nano networks.

    Attributes:
        folder: Where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        references = write_coco(folder / "refs", (CHECKS, DOTS), 3, seed=1)
        targets = write_coco(folder / "targets", (CHECKS, DOTS), 2, seed=2)
        self.references = coco_to_references(read_coco(references), shots=2)
        write_references(self.references, folder / "refs.pkl")
        self.keys = {
            "model_cfg.memory_bank_cfg.length_negative": 3,
            "dataset_cfgs.fill_memory.root": folder / "refs" / "images",
            "dataset_cfgs.fill_memory.json_file": references,
            "dataset_cfgs.fill_memory.memory_pkl": folder / "refs.pkl",
            "dataset_cfgs.fill_memory.cat_names": "checks",
            "dataset_cfgs.test.cat_names": "checks",
            "dataset_cfgs.test.root": folder / "targets" / "images",
            "dataset_cfgs.test.json_file": targets,
        }

    def command(self, mode: str, *options: str) -> list[str]:
        """The command line of a stage; words that begin with @ are files in the folder."""
        words = [str(self.folder / word[1:]) if word.startswith("@") else word for word in options]
        return [*stage_arguments(mode, NANO, self.folder, self.keys), *words]

    def run(self, mode: str, *options: str) -> None:
        main(self.command(mode, *options))

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


SWITCH = "--model.model_cfg.sam2_infer_cfgs.with_negative_refs"
NEGATIVES = ("--out_neg_json", "@neg.json", "--out_neg_pkl", "@neg.pkl")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """The data set after all seven steps."""
    scenes = Scenes(tmp_path_factory.mktemp("scenes"))
    scenes.run("fill_memory", "--out_path", "@filled")
    scenes.run("postprocess_memory", "--ckpt_path", "@filled", "--out_path", "@positive")
    scenes.run("test_support", "--ckpt_path", "@positive", *NEGATIVES, "--out_support_res", "@support.json")
    scenes.run("fill_memory_neg", "--ckpt_path", "@positive", *NEGATIVES, "--out_path", "@with_negatives")
    scenes.run("postprocess_memory_neg", "--ckpt_path", "@with_negatives", "--out_path", "@ready")
    scenes.run("test", "--ckpt_path", "@ready", "--export_result", "@results.json")
    return scenes


def test_test_support_takes_the_best_detections_that_no_annotation_of_their_class_confirms(scenes: Scenes) -> None:
    truth, results, negatives = scenes.read("refs/instances.json"), scenes.read("support.json"), scenes.read("neg.json")
    used = {shot["img_id"] for shot in scenes.references[1]}
    assert {result["image_id"] for result in results} == used, "only the images of the references"

    def confirmed(result: dict[str, Any]) -> bool:
        checks = [one for one in truth["annotations"] if one["category_id"] == 1]
        boxes = [one["bbox"] for one in checks if one["image_id"] == result["image_id"]]
        return bool((coco_mask.iou([result["bbox"]], boxes, [0] * len(boxes)) > 0.1).any())

    false = [result for result in results if not confirmed(result)]
    expected = sorted(false, key=lambda result: -result["score"])[:3]
    chosen = negatives["annotations"]
    assert len(chosen) == 3 < len(results)
    for key in ("image_id", "category_id", "bbox", "segmentation"):
        assert [one[key] for one in chosen] == [one[key] for one in expected]
    shots = read_references(scenes.folder / "neg.pkl")
    assert shots == {1: [{"img_id": one["image_id"], "ann_ids": [one["id"]]} for one in chosen]}


def test_the_negative_shots_are_described_like_positive_ones(scenes: Scenes) -> None:
    positive, ready = (load_memory(scenes.folder / name) for name in ("positive", "ready"))
    assert torch.equal(positive.vectors, ready.vectors[~ready.negative])
    assert torch.equal(positive.prototypes, ready.prototypes)  # type: ignore[arg-type]
    annotations = scenes.read("neg.json")["annotations"]
    assert ready.negative_counts.tolist() == [len(annotations)]
    segmenter = ReferenceSegmenter.from_pretrained("nano", device="cpu")
    first = annotations[0]
    image = Image.open(scenes.folder / "refs" / "images" / f"{first['image_id']:06d}.png")
    mask, (x, y, w, h) = coco_mask.decode(first["segmentation"]).astype(bool), first["bbox"]
    segmenter.load_memory(scenes.folder / "positive")
    segmenter.add_reference("checks", image, mask=mask, box=(x, y, x + max(w, 1), y + max(h, 1)), negative=True)
    ours, staged = segmenter.memory.negatives, ready.negatives
    index = int((staged.classes == ours.classes[0]).nonzero()[0])
    torch.testing.assert_close(ours.vectors[0], staged.vectors[index], atol=1e-4, rtol=0)


def test_with_negative_refs_decides_whether_negatives_count(scenes: Scenes) -> None:
    scenes.run("test", "--ckpt_path", "@ready", "--export_result", "@without.json", SWITCH, "false")
    scenes.run("test", "--ckpt_path", "@positive", "--export_result", "@before.json")
    files = {name: (scenes.folder / f"{name}.json").read_bytes() for name in ("results", "without", "before")}
    assert files["without"] == files["before"] != files["results"]


def test_an_interrupted_stage_resumes(scenes: Scenes, capsys: Capture) -> None:
    words = ("--ckpt_path", "@positive", "--out_neg_json", "@again.json", "--out_neg_pkl", "@again.pkl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STAGES["test_support"], "finish", None)  # it fails when all items are done
        with pytest.raises(TypeError):
            scenes.run("test_support", *words)
    scenes.run("test_support", *words)
    assert "are done" in capsys.readouterr().out
    assert scenes.read("again.json") == scenes.read("neg.json")


@pytest.mark.parametrize("case", cases_in("negatives"))
def test_mistakes_are_named(scenes: Scenes, case: dict[str, Any], refusal: Refusal) -> None:
    assert case["refused"] in refusal(*scenes.command(*case["stage"].split()))


# Python and segment


def test_python_and_segment_find_the_same_with_negatives(
    photo: Photo, nano_checkpoints: Checkpoints, nano_options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "not" / "thing" / "1.png"
    ground = np.zeros_like(photo.mask)
    ground[:30, :40] = True
    write_picture(ground, other.with_name("1_mask.png"))
    Image.open(photo.path).save(other)
    words = ["--reference", photo.reference(), "--negatives", str(tmp_path / "not")]
    words += ["--negative", f"thing:{photo.path}:box=60,5,110,40", *nano_options]
    out = tmp_path / "out"
    main(["segment", *words, "--images", str(photo.path), "--out", str(out), "--score", "0"])
    results = json.loads((out / "results.json").read_text())

    settings = Settings(points_per_side=8)
    segmenter = ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", settings=settings)
    with pytest.raises(UserError, match="show a thing before what is no thing"):
        segmenter.add_reference("thing", other, mask=ground, negative=True)
    segmenter.add_reference("thing", photo.path, mask=photo.mask)
    without = segmenter.segment(photo.path, threshold=0.0)
    segmenter.add_reference("thing", other, mask=ground, negative=True)
    segmenter.add_reference("thing", photo.path, box=(60, 5, 110, 40), negative=True)
    assert "memory=MemoryBank({thing: 1 and 2 negative})" in repr(segmenter)
    found = segmenter.segment(photo.path, threshold=0.0)
    assert found.scores.tolist() == pytest.approx([one["score"] for one in results])
    assert found.scores.tolist() != without.scores.tolist()

    main(["memory", "show", str(out / "references.memory")])
    assert "thing  1 reference, 2 negative" in capsys.readouterr().out
    main(["segment", "--check-references", *words, "--out", str(out)])
    page = (out / "references.html").read_text()
    assert page.count("not thing:") == 2
    assert "1 reference and 2 negative references of 1 class" in page
    segmenter.remove("thing")
    assert segmenter.memory is None
    segmenter.load_memory(out / "references.memory")
    assert segmenter.segment(photo.path, threshold=0.0).scores.tolist() == found.scores.tolist()


def test_objects_given_twice_are_noted(photo: Photo, nano_options: list[str], tmp_path: Path, capsys: Capture) -> None:
    first, second = (str(tmp_path / f"{name}.memory") for name in "ab")
    given = ["segment", "--reference", photo.reference(), *nano_options]
    main([*given, "--save-memory", first])
    assert "note" not in capsys.readouterr().err
    main([*given, "--negative", photo.reference(), "--save-memory", second])
    assert "1 reference given both as a reference and as a negative of a class" in capsys.readouterr().err
    main([*given, "--memory", first, "--save-memory", second])
    assert "1 reference given more than once" in capsys.readouterr().err
    main(["memory", "merge", first, second, "--out", str(tmp_path / "c.memory")])
    assert "2 references given more than once" in capsys.readouterr().err


# What it is good for


def test_the_ap_of_a_class_rises_when_what_is_confused_with_it_is_its_negative(tmp_path: Path) -> None:
    """Checks are searched for in scenes of checks and dots, with the trained nano networks."""
    references = read_coco(write_coco(tmp_path / "refs", (CHECKS, DOTS), 6, seed=2))
    targets = read_coco(write_coco(tmp_path / "targets", (CHECKS, DOTS), 4, seed=3))
    segmenter = nano_segmenter(16)

    def show(category_id: int, negative: bool) -> None:
        large = [one for one in references.anns.values() if min(one["bbox"][2:]) >= 32]
        for annotation in [one for one in large if one["category_id"] == category_id][:3]:
            image = tmp_path / "refs" / "images" / references.imgs[annotation["image_id"]]["file_name"]
            segmenter.add_reference("checks", image, mask=references.annToMask(annotation), negative=negative)

    def ap() -> float:
        results = []
        for image_id, entry in targets.imgs.items():
            image = tmp_path / "targets" / "images" / entry["file_name"]
            results += segmenter.segment(image, threshold=0.0).to_coco(image_id)
        metrics, _ = evaluate(targets, results, [Category(1, "checks")])
        return float(metrics["segm"]["AP"] or 0)

    show(1, negative=False)
    before = ap()
    show(2, negative=True)
    assert ap() > before

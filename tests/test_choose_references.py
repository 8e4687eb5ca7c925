"""Choosing references from a pool: what is chosen, that it resumes, and that the paper's draw stays as it is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from no_time_to_train.cli import main
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.demo.scenes import NOVEL_CLASSES, write_coco
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train_extras.choosing.best_references import (
    NO_INSTANCE,
    ClassRanking,
    PoolProposals,
    PoolReferences,
    choose_best,
    distinct_proposals,
    shown_instances,
)
from tests.conftest import Capture, Patch
from tests.test_architecture import modules_after
from timing import choosing

#: Classes and images of the planted pool, which has one instance of each class in each image.
CLASSES, IMAGES = 3, 8


def planted_pool(wrong: int = 0) -> tuple[PoolProposals, PoolReferences]:
    """A pool in which each instance has a proposal near its class's own axis, and each image one of the background.

    Args:
        wrong: Image ``wrong`` has an instance that is annotated as class 0 and looks like class 1.
    """
    generator = torch.Generator().manual_seed(0)

    def near(axis: int) -> Tensor:
        return F.one_hot(torch.tensor(axis), 8).float() + 0.3 * torch.randn(8, generator=generator)

    vectors, instances, classes, described = [], [], [], []
    for image in range(IMAGES):
        looks = [1 if (image, label) == (wrong, 0) else label for label in range(CLASSES)]
        vectors.append(F.normalize(torch.stack([near(axis) for axis in [*looks, CLASSES]]), dim=1))
        instances.append(torch.tensor([*range(CLASSES), NO_INSTANCE]))
        classes.append(torch.arange(CLASSES))
        described += [near(axis) for axis in looks]
    proposals = PoolProposals.join(vectors, instances, classes)
    return proposals, PoolReferences(
        torch.stack(described), proposals.instance_classes, torch.arange(IMAGES).repeat_interleave(CLASSES)
    )


@pytest.mark.parametrize("wrong", [0, 3, IMAGES - 1])
def test_a_mislabeled_instance_is_not_chosen(wrong: int) -> None:
    proposals, references = planted_pool(wrong)
    ranking = ClassRanking(proposals, references, 0)
    chosen, _ = choose_best(ranking, IMAGES // 2)
    assert len(set(chosen)) == IMAGES // 2
    assert wrong not in references.images[chosen]
    assert (references.classes[chosen] == 0).all()


def test_a_larger_choice_begins_with_the_smaller_and_is_the_same_each_time() -> None:
    proposals, references = planted_pool()
    one, two, five, again = (choose_best(ClassRanking(proposals, references, 2), count) for count in (1, 2, 5, 5))
    assert five == again
    assert [one[0], two[0]] == [five[0][:1], five[0][:2]]


def test_a_reference_that_finds_only_its_own_image_is_worth_nothing() -> None:
    odd, usual, other = torch.eye(3)
    first = [torch.tensor([0])] * 3
    proposals = PoolProposals.join([odd[None], usual[None], usual[None]], first, first)
    vectors = torch.stack([odd, usual, usual, other])
    references = PoolReferences(vectors, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 2]))
    scores = ClassRanking(proposals, references, 0).scores([[0], [1], [0, 1]])
    assert scores.tolist() == pytest.approx([0, 2 / 3, 2 / 3])


def test_proposals_that_resemble_another_class_more_do_not_count() -> None:
    ours, theirs = F.normalize(torch.tensor([[1.0, 0.8], [0.8, 1.0]]), dim=1)
    proposals = PoolProposals.join(
        [torch.zeros(0, 2), torch.stack([ours, theirs])],
        [torch.zeros(0, dtype=torch.int64), torch.tensor([0, 1])],
        [torch.tensor([0]), torch.tensor([0, 0])],
    )
    references = PoolReferences(torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert ClassRanking(proposals, references, 0).scores([[0]]).tolist() == pytest.approx([1 / 3])


def test_of_equally_good_references_the_first_is_chosen_and_the_only_one_of_a_class_with_a_score_of_0() -> None:
    proposals, references = planted_pool(wrong=-1)
    same = references._replace(vectors=F.one_hot(references.classes, 8).float())
    axes = torch.where(proposals.instances < 0, CLASSES, proposals.instances % CLASSES)
    perfect = replace(proposals, vectors=F.one_hot(axes, 8).float())
    chosen, score = choose_best(ClassRanking(perfect, same, 0), 3)
    assert (references.images[chosen].tolist(), score) == ([0, 1, 2], 1)
    references = PoolReferences(torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 0]))
    proposals = PoolProposals.join([torch.eye(2)], [torch.tensor([0, 1])], [torch.tensor([0, 1])])
    assert choose_best(ClassRanking(proposals, references, 0), 1) == ([0], 0)


def test_a_proposal_shows_the_instance_that_it_overlaps_most_and_of_equal_boxes_the_best_one_remains() -> None:
    iou = torch.tensor([[0.2, 0.9], [0.5, 0.1], [0.49, 0.4]])
    assert shown_instances(iou).tolist() == [1, 0, NO_INSTANCE]
    assert shown_instances(iou[:, :0]).tolist() == [NO_INSTANCE] * 3
    boxes = torch.tensor([[0, 0, 9, 9], [20, 0, 29, 9], [0, 0, 9, 10]])
    assert distinct_proposals(boxes, torch.tensor([0.5, 0.1, 0.8])).tolist() == [1, 2]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of two classes in COCO's format, in which one instance of the first is annotated as the second."""
    folder = tmp_path_factory.mktemp("scenes")
    path = write_coco(folder, (NOVEL_CLASSES[0], NOVEL_CLASSES[5]), 10, 1000)
    data = json.loads(path.read_text())
    mislabeled = next(one for one in data["annotations"] if one["category_id"] == 1 and one["area"] > 5000)
    mislabeled["category_id"] = 2
    path.write_text(json.dumps(data))
    (folder / "mislabeled").write_text(str(mislabeled["id"]))
    return path


def command(scenes: Path, out: Path, *options: str) -> list[str]:
    images = str(scenes.parent / "images")
    return ["sample-references", "--json-file", str(scenes), "--image-dir", images, "--out", str(out), *options]


def choosing_best(scenes: Path, out: Path) -> list[str]:
    options = "--choose best --n-shot 2 --pool 5 --nano --points-per-side 8 --device cpu"
    return command(scenes, out, *options.split())


def test_the_command_chooses_after_a_kill_what_it_chooses_without_one(
    scenes: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    describe = Segmenter.describe
    seen = []

    def counted(*arguments: object) -> object:
        if len(seen) == 3 and stop:
            raise KeyboardInterrupt
        seen.append(arguments)
        return describe(*arguments)  # type: ignore[arg-type]  # whatever its arguments are

    monkeypatch.setattr(Segmenter, "describe", counted)
    stop, out = True, tmp_path / "refs.json"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        main(choosing_best(scenes, out))
    assert not out.exists()
    stop = False
    main([*choosing_best(scenes, out), "--plot"])
    printed = capsys.readouterr().out
    references = read_references(out)
    images = int(printed.split(" classes in ")[1].split(" images")[0])
    assert len(seen) == images, "each image is described once in both runs"
    assert "the proposals of 3 images were in" in printed
    assert printed.count("stripes") == 1, "a line for each class"
    assert out.with_suffix(".png").is_file()

    chosen = [shot["ann_ids"][0] for shots in references.values() for shot in shots]
    assert [len(shots) for shots in references.values()] == [2, 2]
    assert len(set(chosen)) == 4
    assert int((scenes.parent / "mislabeled").read_text()) not in chosen

    shutil.copytree(tmp_path / "refs_proposals", tmp_path / "again_proposals")
    main(choosing_best(scenes, tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes()
    assert len(seen) == images, "everything was in the cache"


def test_the_draw_stays_as_it_is(scenes: Path, tmp_path: Path) -> None:
    options: list[list[str]] = [[], ["--choose", "random"], ["--heuristics"], ["--choose", "large"]]
    for index, option in enumerate(options):
        main(command(scenes, tmp_path / f"{index}.json", "--n-shot", "3", *option))
    draw, random, heuristics, large = ((tmp_path / f"{index}.json").read_bytes() for index in range(4))
    assert draw == random
    assert heuristics == large != draw


def test_the_draw_builds_no_networks(scenes: Path, tmp_path: Path) -> None:
    words = command(scenes, tmp_path / "refs.json", "--n-shot", "1")
    imported = modules_after(f"from no_time_to_train.cli import main; main({words!r})")
    assert not imported & {"timm", "sam2", "torchvision", "pytorch_lightning"}


def test_the_measured_rows_become_a_table_and_a_picture(tmp_path: Path) -> None:
    rows = [choosing.Row(seed, shots, 70.0, [60.0, 62.0], 71.0) for seed in (1, 2) for shots in (1, 5)]
    lines = choosing.table(rows).splitlines()
    assert lines[2] == "| 1 | 1 | 70.0 | 61.0 | 1.0 | 60.0 | 62.0 | +9.0 | 71.0 |"
    assert lines[4].startswith("| 1 | mean | 70.0 | 61.0")
    choosing.plot(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")

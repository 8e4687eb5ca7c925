"""Reference sets: which instances are sampled, of which classes, and the files that they are written to."""

import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from no_time_to_train.cli import main
from no_time_to_train.data.class_splits import select_categories
from no_time_to_train.data.coco import read_coco
from no_time_to_train.data.reference_sets import (
    coco_to_references,
    read_references,
    sample_references,
    validate_references,
    write_references,
)
from no_time_to_train.errors import UserError, UserNotice
from tests.conftest import DATA, Patch, Refusal


def annotations(*entries: dict[str, Any]) -> dict[str, Any]:
    """A COCO file with these annotations, which are good references except for the values given."""
    base = {"bbox": [20, 20, 40, 40], "iscrowd": 0, "category_id": 3}
    images = [{"id": image_id, "width": 100, "height": 100, "file_name": f"{image_id}.png"} for image_id in range(9)]
    return {
        "images": images,
        "categories": [{"id": 3, "name": "disc"}],
        "annotations": [{**base, "id": index, "image_id": index, **entry} for index, entry in enumerate(entries)],
    }


def sample(tmp_path: Path, data: dict[str, Any], shots: int, seed: int = 1, **options: bool) -> list[int]:
    """The ids of the annotations that are sampled from a COCO file."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data))
    coco = read_coco(path)
    references = sample_references(coco, select_categories(coco, path), shots, seed, **options)
    return [shot["ann_ids"][0] for shot in references[3]]


def test_sampling_skips_bad_references(tmp_path: Path) -> None:
    bad = [{"bbox": box} for box in ([20, 20, 31, 40], [9, 20, 40, 40], [20, 20, 71, 40])]
    data = annotations({}, {"iscrowd": 1}, *bad, {"image_id": 0}, {"isimpossible": 1})
    assert sorted(sample(tmp_path, data, 2)) in ([0, 6], [5, 6])
    with pytest.raises(UserError, match="has 1 instance"):
        sample(tmp_path, data, 2, skip_impossible=True)


def test_sampling_for_lvis_fills_up(tmp_path: Path) -> None:
    small = {"bbox": [20, 20, 5, 5]}
    assert sample(tmp_path, annotations({}, small), 3, fill_up=True) == [0, 0, 0]
    assert sorted(sample(tmp_path, annotations(small, small), 3, fill_up=True)) in ([0, 0, 1], [0, 1, 1])


def test_sampling_for_lvis_takes_the_first_others_of_a_class_without_good_references(tmp_path: Path) -> None:
    """They may be in the same image, and all are candidates, crowds too."""
    small: dict[str, Any] = {"bbox": [20, 20, 5, 5], "image_id": 4}
    entries: list[dict[str, Any]] = [small, small, {"iscrowd": 1, "image_id": 4}, small, {**small, "image_id": 5}]
    for seed in range(9):
        expected = list(range(5))
        random.Random(seed).shuffle(expected)
        assert sample(tmp_path, annotations(*entries), 3, seed, fill_up=True) == expected[:3]
    found = sample(tmp_path, annotations(*entries), 7, 0, fill_up=True)
    assert sorted(found[:5]) == list(range(5))
    assert found[5:] == found[:2]


def test_references_by_rule_prefer_large_objects_that_touch_no_border(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    entries = []
    for image_id in range(9):
        x, y = rng.choice([0, 5, 12, 15, 18, 20], 2).tolist()
        w, h = rng.integers(28, 66, 2).tolist()
        entries += [{"image_id": image_id, "bbox": [x, y, w, h], "area": w * h}] * 2
    areas = [entry["area"] for entry in entries]
    low, high = np.quantile(areas, [0.25, 0.75])
    scores = []
    for ann_id, entry in enumerate(entries):
        x, y, w, h = entry["bbox"]
        margin, group = min(x, y, 100 - x - w, 100 - y - h), int(w * h >= low) + int(w * h >= high)
        if margin >= 10 and min(w, h) >= 32:
            scores.append((-(1000 * (margin > 0) + 100 * group + w * h / max(areas)), ann_id))
    good = [ann_id for _, ann_id in sorted(scores)]
    for seed in (0, 1):  # of the two equal ones in each image, the first
        assert sample(tmp_path, annotations(*entries), 2, seed, heuristics=True) == good[::2][:2]


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


def test_a_crowd_is_no_first_reference_where_there_are_others() -> None:
    coco = COCO()
    for crowds, expected in (([1, 0, 0], [1]), ([1, 1, 1], [0])):
        coco.dataset = annotations(*({"iscrowd": crowd} for crowd in crowds))
        assert [shot["ann_ids"] for shot in coco_to_references(coco, 1)[3]] == [expected]


def test_a_class_with_fewer_shots_than_asked_for_is_used_with_a_notice() -> None:
    coco = read_coco(DATA / "references.json")
    categories = select_categories(coco, "references.json")
    references = coco_to_references(coco)
    references[7].pop()
    with pytest.warns(UserNotice, match=r"fewer shots than memory_length \(2\).*: \S+ \(1\)$"):
        chosen = validate_references(references, coco, "references.json", categories, shots=2)
    assert [len(shots) for shots in chosen.values()] == [2, 1, 2]
    del references[7]
    with pytest.raises(UserError, match="has no shots of class"):
        validate_references(references, coco, "references.json", categories, shots=2)


def test_classes_with_fewer_annotations_than_the_shots_that_are_asked_for_are_named() -> None:
    coco = read_coco(DATA / "references.json")
    name = coco.cats[7]["name"]
    coco.dataset["annotations"].remove(coco.loadAnns(coco.getAnnIds(catIds=[7]))[0])
    with pytest.warns(UserNotice, match=rf"classes with fewer than 2 references: {name} \(1\)$"):
        coco_to_references(coco, 2)


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
    with pytest.raises(UserError, match=r"known are .*few_shot_classes.* lvis,.*pascal_voc_split_3"):
        select_categories(lvis_file(tmp_path), "lvis.json", "xyz")


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


def test_data_sets_choose_the_file_and_the_seed_is_42(tmp_path: Path, monkeypatch: Patch, refusal: Refusal) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "lvis_minival_rare": "data/lvis/annotations/lvis_v1_train.json",
        "pascal_voc_split_2": "data/pascal-voc/annotations/voc0712_trainval_masks.json",
        "coco": "data/coco/annotations/instances_train2017.json",
    }
    for split, file in files.items():
        line = refusal("sample-references", "--dataset", split, "--n-shot", "1", "--out", "refs.json")
        assert f"file not found: {file}" in line
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
    entry = {"img_id": 101, "ann_ids": [1, 2]}
    references = validate_references({3: [entry]}, coco, "references.json", categories, shots=None)
    assert references[3][0]["ann_ids"][0] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04]r\xff\xff\xff\x7f.", "its memo has no place 2147483647"),
        (b"\x80\x05\x96" + (1 << 33).to_bytes(8, "little") + b"x.", "only 2 remain"),
        (
            b"\x80\x04)\x94" + b"h\0h\0\x86\x94" + b"h\1h\1\x86\x94.",
            "uses a tuple several times, as arrays of numpy do",
        ),
        (pickle.dumps({1: [{"img_id": 10**5000, "ann_ids": [1]}]}), "Exceeds the limit"),
        (pickle.dumps({1: [{"img_id": 1, "ann_ids": [2**63]}]}), "9223372036854775808 is not a number of 64 bits"),
    ],
)
def test_a_pickle_that_asks_for_more_than_it_holds_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "set.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_references(path)

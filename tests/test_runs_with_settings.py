"""Runs with settings that are not the paper's: they are repeatable, cached, and options of ``segment`` as well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from no_time_to_train.cli import main
from no_time_to_train.errors import UserError
from no_time_to_train.method.proposals import DescribedProposals
from no_time_to_train.method.segmenter import Segmenter
from no_time_to_train.method.settings import MODES
from tests.conftest import DATA, Photo, recorded, results
from tests.test_stages import finish, start

Arguments = Callable[..., list[str]]
#: The images that are searched, of the five of the test data.
IMAGES = 3
GUIDED: dict[str, Any] = {"prompts": "guided"}
TILES: dict[str, Any] = {"tiles": 2, "points_per_side": 4}


@pytest.fixture
def run(arguments: Arguments, tmp_path: Path) -> Arguments:
    """The command line of the test stage on the first images, for the folder of its results and ``sam2_infer_cfgs``."""
    data = json.loads((DATA / "targets.json").read_text())
    ids = [image["id"] for image in data["images"][:IMAGES]]
    annotations = [one for one in data["annotations"] if one["image_id"] in ids]
    targets = {**data, "images": data["images"][:IMAGES], "annotations": annotations}
    (tmp_path / "targets.json").write_text(json.dumps(targets))
    words = "--model.init_args.dataset_cfgs.test.json_file", tmp_path / "targets.json"
    return lambda folder, *options, **settings: arguments(folder, *words, *options, **settings)


def test_two_processes_give_the_same_and_a_run_with_other_settings_does_not_resume(
    run: Arguments, refusal: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**MODES["best"], **GUIDED, **TILES}
    main(run(tmp_path / "one", **settings))
    finish(start(run(tmp_path / "two", "--trainer.devices", 2, "--trainer.strategy", "ddp", **settings)))
    match, calls = Segmenter.match_and_merge, []

    def stopping(self: Segmenter, proposals: DescribedProposals) -> object:
        calls.append(proposals)
        if len(calls) == 2:
            raise UserError("stop")
        return match(self, proposals)

    monkeypatch.setattr(Segmenter, "match_and_merge", stopping)
    assert "stop" in refusal(*run(tmp_path / "resumed", **settings))
    other = run(tmp_path / "resumed", **{**settings, "merge_exponent": 0.25})
    assert "finished items of a run with another sam2_infer_cfgs" in refusal(*other)
    main(run(tmp_path / "resumed", **settings))
    assert len(calls) == 2 + IMAGES - 1, "one image was done"
    assert results(tmp_path / "resumed") == results(tmp_path / "two") == results(tmp_path / "one")
    prompts = [recorded(tmp_path / name)["prompts_per_image"] for name in ("one", "resumed")]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (GUIDED, [{"prompts": "grid"}, {"prompt_threshold": 0.1}, {"prompt_budget": 0.1}]),
        (TILES, [{"tile_overlap": 0.1}, {"tiles": 1}]),
    ],
    ids=["guided", "tiles"],
)
def test_a_cache_entry_is_used_with_the_same_prototypes_and_numbers_only(
    settings: dict[str, Any],
    changes: list[dict[str, Any]],
    run: Arguments,
    memory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other.ckpt"
    cached = ("--model.init_args.cache_dir", cache)
    main(run(tmp_path / "first", *cached, **settings))
    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "_describe_squares", None)  # not needed any more
        main(run(tmp_path / "second", *cached, **settings))
        main(run(tmp_path / "score", *cached, **settings, score="cosine_iou"))
    assert results(tmp_path / "second") == results(tmp_path / "first") != b"[]"
    assert recorded(tmp_path / "second")["prompts_per_image"] == recorded(tmp_path / "first")["prompts_per_image"]
    for count, change in enumerate(changes, start=2):
        main(run(tmp_path / str(count), *cached, **{**settings, **change}))
        assert len(list(cache.iterdir())) == IMAGES * count
    bank = torch.load(memory, weights_only=True)
    torch.save({**bank, "prototypes": bank["prototypes"].flip(1)}, other)
    main(run(tmp_path / "other", *cached, memory=other, **settings))
    grid = settings == TILES  # proposals of the grid do not depend on the prototypes
    assert len(list(cache.iterdir())) == IMAGES * (1 + len(changes) + (not grid))


@pytest.mark.parametrize(("option", "value", "most"), [("prompts", "guided", 0.15 * 64), ("tiles", "2", 5 * 64)])
def test_segment_takes_the_setting_and_records_the_number_of_prompts(
    option: str, value: str, most: float, photo: Photo, nano_options: list[str], tmp_path: Path
) -> None:
    words = ["segment", "--reference", photo.reference(), "--images", str(photo.path), "--out", str(tmp_path / "out")]
    main([*words, *nano_options, f"--{option}", value])
    run = recorded(tmp_path / "out", "segment")
    assert str(run["settings"][option]) == value
    assert 0 < run["prompts_per_image"] <= most
    assert run["prompts_per_image"] == most or option == "prompts"

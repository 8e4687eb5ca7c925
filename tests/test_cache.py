"""The proposal cache: the same detections as without it, and no damaged entry is used."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from no_time_to_train import ReferenceSegmenter, Settings
from no_time_to_train.cli import main
from no_time_to_train.method.mask_proposals import MaskProposer
from no_time_to_train.method.proposals import Proposals
from no_time_to_train.method.segmenter import describe_proposals
from no_time_to_train.pipeline.proposal_cache import ProposalCache, hash_networks, proposals_depend_on
from tests.conftest import DATA, Arguments, Checkpoints, Patch, assert_same_results, results, stage_arguments
from tests.test_stages import finish, start

IMAGES = len(json.loads((DATA / "targets.json").read_text())["images"])
SAM2_CKPT = "--model.init_args.model_cfg.sam2_ckpt_path"


def option(cache: Path) -> list[str]:
    return ["--model.init_args.cache_dir", str(cache)]


@pytest.fixture(scope="module")
def filled(memory: Path, nano_checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the test data with the folder ``cache``, which it filled."""
    folder = tmp_path_factory.mktemp("filled")
    run = [*stage_arguments("test", nano_checkpoints, folder), "--ckpt_path", str(memory)]
    main([*run, *option(folder / "cache")])
    return folder


@pytest.fixture
def cache(filled: Path, tmp_path: Path) -> Path:
    """A copy of the cache."""
    return shutil.copytree(filled / "cache", tmp_path / "cache")


@pytest.fixture
def proposer_calls(monkeypatch: Patch) -> list[Any]:
    """One entry per image that SAM 2 has processed."""
    calls: list[Any] = []
    forward = MaskProposer.forward

    def counted(self: MaskProposer, image: torch.Tensor) -> Proposals:
        calls.append(image.shape)
        return forward(self, image)

    monkeypatch.setattr(MaskProposer, "forward", counted)
    return calls


def test_a_second_run_skips_the_networks_and_writes_the_same_bytes(
    arguments: Arguments, filled: Path, cache: Path, tmp_path: Path, proposer_calls: list[Any]
) -> None:
    main(arguments(tmp_path / "without"))
    assert len(proposer_calls) == len(entries := sorted(cache.iterdir())) == IMAGES
    main(arguments(tmp_path / "second", *option(cache), "--model.init_args.data_load_cfgs.workers", 1))
    assert len(proposer_calls) == IMAGES
    assert sorted(cache.iterdir()) == entries
    assert results(tmp_path / "second") == results(filled)
    main(arguments(tmp_path / "other", *option(cache), iou_thr=0.45))  # on which the proposals depend
    assert len(proposer_calls) == 2 * IMAGES
    assert_same_results(json.loads(results(filled)), json.loads(results(tmp_path / "without")), atol=1e-3)


def test_a_broken_or_foreign_entry_is_made_again(
    arguments: Arguments, filled: Path, cache: Path, tmp_path: Path, proposer_calls: list[Any]
) -> None:
    contents = {path: path.read_bytes() for path in sorted(cache.iterdir())}
    half, foreign, other_image, flipped, _ = contents
    half.write_bytes(contents[half][: len(contents[half]) // 2])
    foreign.write_text("not an entry at all")
    shutil.copy(flipped, other_image)
    flipped.write_bytes(contents[flipped][:-1] + bytes([contents[flipped][-1] ^ 1]))
    main(arguments(tmp_path, *option(cache)))
    assert len(proposer_calls) == 4
    assert {path: path.read_bytes() for path in sorted(cache.iterdir())} == contents
    assert results(tmp_path) == results(filled)


def test_a_changed_checkpoint_is_another_network_and_a_renamed_one_is_not(
    arguments: Arguments, cache: Path, nano_checkpoints: Checkpoints, tmp_path: Path, proposer_calls: list[Any]
) -> None:
    renamed = tmp_path / "renamed.pt"
    shutil.copy(nano_checkpoints[0], renamed)
    main(arguments(tmp_path, *option(cache), SAM2_CKPT, renamed))
    assert len(proposer_calls) == 0
    weights = torch.load(renamed, weights_only=True)["model"]
    weights["no_mem_embed"] += 1
    torch.save({"model": weights}, renamed)
    main(arguments(tmp_path, *option(cache), SAM2_CKPT, renamed))
    assert len(proposer_calls) == IMAGES


def test_the_key_has_all_that_proposals_depend_on_and_nothing_else(nano_checkpoints: Checkpoints) -> None:
    def key(debias: int = 0, precision: str = "float32", **settings: Any) -> str:
        built = ReferenceSegmenter.from_pretrained(*nano_checkpoints, device="cpu", debias=debias).segmenter
        return json.dumps(proposals_depend_on(hash_networks(built), Settings(**settings), precision))

    others = [key(debias=3), key(precision="bfloat16"), key(tiles=2), key(tiles=2, tile_overlap=0.3)]
    others += [key(points_per_side=4), key(pred_iou_thresh=0.3)]
    assert len({key(), *others}) == 7
    later = {"merge_exponent": 1.0, "box_nms_thresh": 0.3, "classes_per_mask": -1}
    assert key() == key(max_instances=5, points_per_batch=3, **later)


def test_two_processes_fill_one_cache(arguments: Arguments, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for process in [start(arguments(tmp_path / name, *option(cache))) for name in ("a", "b")]:
        finish(process)
    assert len(list(cache.iterdir())) == IMAGES
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_an_image_in_which_nothing_is_proposed_has_an_entry(tmp_path: Path) -> None:
    proposals = describe_proposals(Proposals(torch.zeros(0, 16, 16), torch.zeros(0)), torch.randn(8, 4, 4), 20, 30)
    cache = ProposalCache(tmp_path / "cache", {})
    cache.write("key", proposals, 20, 30)
    stored = cache.read("key")
    assert (stored[:2], stored.proposals.vectors.shape) == ((20, 30), (0, 8))
    assert stored.proposals.upsampled_masks(torch.arange(0)).dense().shape == (0, 20, 30)

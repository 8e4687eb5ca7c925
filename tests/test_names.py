"""The names of classes as a second cue next to references. The text towers here are tiny, with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from no_time_to_train import ReferenceSegmenter, UserError
from no_time_to_train_extras.class_names.second_cue import mix
from no_time_to_train_extras.class_names.text_tower import TextTower
from tests.conftest import Patch

NANO_WIDTH = 192
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def save_tipsv2(folder: Path, width: int) -> Any:
    """A whole TIPSv2 with a tokenizer of single letters, as ``save_pretrained`` writes it."""
    hf = pytest.importorskip("transformers", reason="the extra names is not installed")
    if not hasattr(hf, "Tipsv2TextModel"):
        pytest.skip(f"transformers {hf.__version__} has no TIPSv2")
    layer = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**layer, "intermediate_size": 16, "vocab_size": 40}
    torch.manual_seed(0)
    network = hf.Tipsv2Model(hf.Tipsv2Config(text_config=text, vision_config={**layer, "image_size": 28})).eval()
    network.save_pretrained(folder)
    words = ["<pad>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    hf.Tipsv2Tokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    return network


@pytest.fixture
def segmenter() -> ReferenceSegmenter:
    """The nano networks, said to be a TIPSv2, with two classes."""
    segmenter = ReferenceSegmenter.from_pretrained("nano", device="cpu")
    segmenter.made_with["encoder"] = "tipsv2_base"
    for label, box in (("boat", (0, 0, 30, 30)), ("car", (20, 20, 60, 60))):
        mask = np.zeros((64, 64), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        segmenter.add_reference(label, PICTURE, mask=mask)
    return segmenter


def prototypes_of(segmenter: ReferenceSegmenter) -> torch.Tensor:
    return segmenter.memory.prototypes


def test_a_name_and_references_count_by_their_weights_whatever_their_lengths() -> None:
    mixed = mix(torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.1]]), 0.25)
    assert mixed.tolist() == [[0.75, 0.25]]


def test_a_name_has_the_vector_that_the_whole_model_gives_to_a_photo_of_it(tmp_path: Path) -> None:
    network = save_tipsv2(tmp_path, 16)
    tower = TextTower(tmp_path, "cpu")
    tokens = tower.tokenizer(["a photo of a boat"], return_tensors="pt")
    with torch.no_grad():
        expected = network.get_text_features(**tokens).pooler_output
    vectors = tower.embed(["boat", "a much longer name than that"])
    assert vectors.shape == (2, 16)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors[:1], expected)  # padding changes nothing


def test_names_join_the_prototypes_and_leave_the_memory_alone(tmp_path: Path, segmenter: ReferenceSegmenter) -> None:
    save_tipsv2(tmp_path, NANO_WIDTH)
    own = prototypes_of(segmenter).clone()
    segmenter.use_names(0.3, tmp_path)
    texts = TextTower(tmp_path, "cpu").embed(["boat", "car"])
    expected = 0.7 * F.normalize(own, dim=1) + 0.3 * F.normalize(texts, dim=1)
    torch.testing.assert_close(segmenter.segmenter.prototypes, expected)
    assert torch.equal(prototypes_of(segmenter), own)
    segmenter.remove("boat")
    torch.testing.assert_close(segmenter.segmenter.prototypes, expected[1:])
    with pytest.raises(UserError, match="thresholds cannot be measured with names"):
        segmenter.measure_thresholds()
    segmenter.use_names(0)
    assert torch.equal(segmenter.segmenter.prototypes, own[1:])


def test_a_text_tower_of_another_width_is_refused(tmp_path: Path, segmenter: ReferenceSegmenter) -> None:
    save_tipsv2(tmp_path, 16)
    with pytest.raises(UserError, match="vectors of 16 numbers and tipsv2_base of 192"):
        segmenter.use_names(0.3, tmp_path)


def test_an_encoder_that_shares_no_space_with_texts_is_refused(segmenter: ReferenceSegmenter) -> None:
    segmenter.made_with["encoder"] = "dinov2_large"
    with pytest.raises(UserError, match=r"names need an encoder .* one of tipsv2_base, .*: this run has dinov2_large"):
        segmenter.use_names(0.3)


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_outside_0_to_1_is_refused(segmenter: ReferenceSegmenter, weight: float) -> None:
    with pytest.raises(UserError, match="weight must be a number"):
        segmenter.use_names(weight)


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch: Patch) -> None:
    monkeypatch.setattr("no_time_to_train_extras.class_names.text_tower.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'no-time-to-train\[names\]'"):
        TextTower("google/tipsv2-b14")


def test_a_folder_that_does_not_exist_is_named(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr("no_time_to_train_extras.class_names.text_tower.find_spec", lambda name: True)
    with pytest.raises(UserError, match=r"folder not found: .*nothing"):
        TextTower(tmp_path / "nothing")


def test_classes_of_a_name_only_have_its_vector_and_no_reference(tmp_path: Path, segmenter: ReferenceSegmenter) -> None:
    save_tipsv2(tmp_path, NANO_WIDTH)
    with pytest.raises(UserError, match="an empty memory"):
        segmenter.add_names(["bird"], tmp_path)
    segmenter.memory = None
    segmenter.add_names(["bird", "boat"], tmp_path)
    texts = TextTower(tmp_path, "cpu").embed(["bird", "boat"])
    torch.testing.assert_close(segmenter.segmenter.prototypes, texts)
    assert {one.label for one in segmenter.segment(PICTURE, threshold=0)} <= {"bird", "boat"}
    with pytest.raises(UserError, match="cannot join classes that have a name only"):
        segmenter.add_reference("car", PICTURE, box=(5, 5, 40, 40))
    segmenter.save_memory(tmp_path / "names.memory")
    other = ReferenceSegmenter.from_pretrained("nano", device="cpu")
    with pytest.raises(UserError, match="was made with"):
        other.load_memory(tmp_path / "names.memory")

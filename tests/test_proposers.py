"""Networks of other packages propose boxes and masks. Theirs are tiny here, with random weights."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from no_time_to_train import ReferenceSegmenter, UserError
from no_time_to_train.api.sources import NetworkSource, build_sources
from no_time_to_train.cli import main
from no_time_to_train.method.beyond.given import Given
from no_time_to_train_extras.proposers import SOURCES, build_source
from no_time_to_train_extras.proposers.everything import Everything, build_generator
from no_time_to_train_extras.proposers.exemplars import Exemplar, Sam3Exemplars, draw_canvas
from tests.attacks.test_cases import cases_in, says
from tests.conftest import Patch
from tests.tiny_proposers import save_mm_grounding_dino, save_owlv2, save_sam3

HEIGHT, WIDTH = 90, 130
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
UPRIGHT = np.ascontiguousarray(PICTURE.transpose(1, 0, 2))
SAVED = {"owlv2": save_owlv2, "mm_grounding_dino": save_mm_grounding_dino, "sam3": save_sam3}


def exemplar(height: int, width: int, box: tuple[int, int, int, int]) -> Exemplar:
    """A red rectangle on a black image, and its mask."""
    x1, y1, x2, y2 = box
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return Exemplar((mask[..., None] * np.array([255, 0, 0])).astype(np.uint8), mask)


ONE = exemplar(60, 80, (20, 10, 50, 40))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each network, called as its source."""
    pytest.importorskip("transformers", reason="the extra proposers is not installed")
    folder = tmp_path_factory.mktemp("proposers")
    for name, save in SAVED.items():
        torch.manual_seed(0)
        save(folder / name)
    return folder


@pytest.fixture(scope="module")
def source(folders: Path) -> Callable[[str], Any]:
    return lambda name: build_source(f"{name}={folders / name}", "cpu", [ONE] if name == "sam3" else ())


def assert_proposals(given: Given, height: int = HEIGHT, width: int = WIDTH) -> None:
    assert len(given) > 0
    assert given.boxes.dtype == given.scores.dtype == torch.float32
    assert given.boxes.isfinite().all()
    assert (given.boxes[:, :2] >= 0).all()
    assert (given.boxes[:, 2:] <= torch.tensor([width, height])).all()
    assert (given.boxes[:, 2:] > given.boxes[:, :2]).all()
    assert given.scores.tolist() == sorted(given.scores.tolist(), reverse=True)
    assert ((given.scores >= 0) & (given.scores <= 1)).all()
    if given.masks is not None:
        assert given.masks.shape == (len(given), height, width)
        for mask, box in zip(given.masks, given.boxes.int().tolist(), strict=True):
            ys, xs = mask.nonzero()
            assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == box


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("picture", [PICTURE, UPRIGHT])
def test_boxes_and_scores_are_in_range(source: Callable[[str], Any], name: str, picture: NDArray[np.uint8]) -> None:
    assert_proposals(source(name)(picture), *picture.shape[:2])


@pytest.mark.parametrize("picture", [PICTURE, UPRIGHT])
def test_boxes_of_owlv2_are_those_that_transformers_reports(
    source: Callable[[str], Any], folders: Path, picture: NDArray[np.uint8]
) -> None:
    import transformers

    height, width = picture.shape[:2]
    network = transformers.Owlv2ForObjectDetection.from_pretrained(folders / "owlv2").eval()
    prepare = transformers.Owlv2ImageProcessor.from_pretrained(folders / "owlv2")
    inputs = prepare(images=[picture], return_tensors="pt")
    with torch.inference_mode():
        found = network(input_ids=torch.tensor([[1, 5, 2]]), **inputs)
    (expected,) = prepare.post_process_object_detection(found, threshold=-1, target_sizes=[picture.shape[:2]])
    given = source("owlv2")(picture)
    whole = expected["boxes"].clamp(torch.zeros(4), torch.tensor([width, height] * 2))
    assert len(given) == ((whole[:, 2:] - whole[:, :2]) >= 1).all(dim=1).sum()
    rows = [int((whole - box).abs().sum(dim=1).argmin()) for box in given.boxes]
    torch.testing.assert_close(given.boxes, whole[rows])
    torch.testing.assert_close(given.scores, found.objectness_logits[0, rows].sigmoid())


@pytest.mark.parametrize("picture", [PICTURE, UPRIGHT])
def test_boxes_of_mm_grounding_dino_are_those_that_transformers_reports(
    source: Callable[[str], Any], folders: Path, picture: NDArray[np.uint8]
) -> None:
    import transformers

    folder = folders / "mm_grounding_dino"
    network = transformers.MMGroundingDinoForObjectDetection.from_pretrained(folder).eval()
    prepare = transformers.GroundingDinoProcessor.from_pretrained(folder)
    with torch.inference_mode():
        found = network(**prepare(images=[picture], text="object.", return_tensors="pt"))
    (expected,) = prepare.post_process_grounded_object_detection(found, threshold=0, target_sizes=[picture.shape[:2]])
    best = expected["scores"].argsort(descending=True)
    given = source("mm_grounding_dino")(picture)
    torch.testing.assert_close(given.boxes, expected["boxes"][best])
    torch.testing.assert_close(given.scores, expected["scores"][best])


def test_propose_writes_the_boxes_of_a_network(source: Callable[[str], Any], folders: Path, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    network = f"mm_grounding_dino={folders / 'mm_grounding_dino'}"
    options = ["--proposer", network, "--device", "cpu", "--out", str(tmp_path / "boxes.json")]
    main(["propose", "--images", str(tmp_path / "picture.png"), *options])
    given = source("mm_grounding_dino")(PICTURE)
    records = json.loads((tmp_path / "boxes.json").read_text())["annotations"]
    boxes = torch.tensor([one["bbox"] for one in records])
    torch.testing.assert_close(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1), given.boxes)
    torch.testing.assert_close(torch.tensor([one["score"] for one in records]), given.scores)


def test_the_text_of_mm_grounding_dino_gets_the_form_that_it_learned(folders: Path) -> None:
    source: Any = build_source(f"mm_grounding_dino={folders / 'mm_grounding_dino'}", "cpu", text=" Red bus ")
    assert source.text == "red bus."


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (33, 33)])
@pytest.mark.parametrize("box", [(0, 0, 9, 12), (20, 10, 50, 40), (70, 5, 80, 60), (79, 59, 80, 60)])
def test_the_box_on_the_canvas_is_around_the_reference(height: int, width: int, box: tuple[int, int, int, int]) -> None:
    target = np.full((height, width, 3), 7, np.uint8)
    canvas, found = draw_canvas(exemplar(60, 80, box), target)
    assert (canvas[:height, :width] == target).all()
    canvas[:height, :width] = 0
    ys, xs = ((canvas[..., 0] > 127) & (canvas[..., 1] < 64)).nonzero()
    np.testing.assert_allclose(found, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1)


def test_the_reference_takes_three_tenths_next_to_the_longer_side_of_the_target() -> None:
    assert draw_canvas(ONE, np.zeros((140, 70, 3), np.uint8))[0].shape == (140, 100, 3)
    assert draw_canvas(ONE, np.zeros((70, 140, 3), np.uint8))[0].shape == (100, 140, 3)


def test_sam_3_sees_each_positive_reference_alone_and_no_negative_one(folders: Path) -> None:
    other = exemplar(50, 50, (1, 2, 30, 40))
    sam3: Any = build_source(f"sam3={folders / 'sam3'}", "cpu", [ONE, other])
    network, seen = sam3.model, []

    def record(**inputs: Any) -> Any:
        seen.append(inputs)
        return network(**inputs)

    record.device = network.device  # type: ignore[attr-defined]
    sam3.model = record
    sam3(PICTURE)
    for inputs, one in zip(seen, [ONE, other], strict=True):
        assert inputs["input_boxes_labels"].tolist() == [[1]]
        canvas, (x1, y1, x2, y2) = draw_canvas(one, PICTURE)
        size = torch.tensor([canvas.shape[1], canvas.shape[0]] * 2)
        expected = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / size
        torch.testing.assert_close(inputs["input_boxes"][0, 0], expected)


def test_a_segmenter_shows_sam_3_its_positive_references_only(folders: Path) -> None:
    segmenter = ReferenceSegmenter.from_pretrained("nano", device="cpu", proposer=f"sam3={folders / 'sam3'}")
    segmenter.add_reference("thing", ONE.image, ONE.mask)
    segmenter.add_reference("thing", PICTURE, np.ones((HEIGHT, WIDTH), bool), negative=True)
    (source,) = segmenter.sources
    assert isinstance(source, NetworkSource)
    (shown,) = source.propose.exemplars  # type: ignore[attr-defined]
    assert (shown.image == ONE.image).all()
    assert (shown.mask == ONE.mask).all()
    assert len(segmenter.propose(PICTURE).proposals) > 0


def test_results_depend_on_the_content_of_the_weights(folders: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folders / "owlv2", tmp_path / "owlv2")
    (weights,) = copy.glob("*.safetensors")

    def depends_on() -> list[Any]:
        (source,) = build_sources(f"owlv2={copy}", 5, "cpu")
        assert isinstance(source, NetworkSource)
        return source.depends_on()

    before = depends_on()
    save_file({name: 2 * one for name, one in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert depends_on()[:2] == before[:2] == [f"owlv2={copy}", 5]
    assert depends_on()[2] != before[2]


def sam3_that_finds(*regions: tuple[slice, slice], canvas: tuple[int, int], presence: float = 0.0) -> Sam3Exemplars:
    """SAM 3 with a network that finds regions of the canvas, each with a lower score than the one before."""
    logits = torch.full((1, len(regions), *canvas), -1.0)
    for index, region in enumerate(regions):
        logits[0, index][region] = 1.0
    scores = {"pred_logits": torch.linspace(2, 1, len(regions))[None], "presence_logits": torch.full((1, 1), presence)}
    sam3 = Sam3Exemplars.__new__(Sam3Exemplars)
    sam3.exemplars = [ONE]
    sam3.prepare = lambda **_: Inputs()
    sam3.model = Mock(device="cpu", return_value=SimpleNamespace(pred_masks=logits, **scores))
    return sam3


class Inputs(dict[str, Any]):
    def to(self, device: object) -> "Inputs":
        return self


def test_masks_of_sam_3_come_back_from_the_canvas_to_the_pixel() -> None:
    target = np.zeros((70, 100, 3), np.uint8)
    inside, across, mostly_outside, reference = (
        (slice(5, 20), slice(30, 41)),
        (slice(60, 75), slice(0, 10)),
        (slice(65, 80), slice(0, 10)),
        (slice(72, 90), slice(0, 10)),
    )
    given = sam3_that_finds(inside, across, mostly_outside, reference, canvas=(100, 100))(target)
    assert given.boxes.tolist() == [[30, 5, 41, 20], [0, 60, 10, 70]]
    torch.testing.assert_close(given.scores, torch.tensor([2, 5 / 3]).sigmoid() / 2)
    expected = np.zeros((2, 70, 100), bool)
    expected[0][inside] = expected[1][across] = True
    assert (np.asarray(given.masks) == expected).all()


def test_sam_3_finds_nothing_where_no_score_is_high_enough() -> None:
    sam3 = sam3_that_finds((slice(5, 20), slice(30, 41)), canvas=(100, 100), presence=-9)
    given = sam3(np.zeros((70, 100, 3), np.uint8))
    assert len(given) == 0
    assert given.masks is not None
    assert given.masks.shape == (0, 70, 100)


def tiny_sam(module: Any) -> Any:
    """A SAM with a small image encoder and random weights, of a package that has SAM's modules."""
    parts = module.modeling
    torch.manual_seed(0)
    encoder = parts.ImageEncoderViT(img_size=128, patch_size=16, embed_dim=16, depth=1, num_heads=2, out_chans=32)
    prompts = parts.PromptEncoder(32, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=4)
    transformer = parts.TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=16, num_heads=2)
    decoder = parts.MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=32)
    return parts.Sam(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder).eval()


@pytest.mark.parametrize("package", ["segment_anything", "mobile_sam"])
def test_masks_of_everything_have_their_boxes_and_predicted_ious(package: str) -> None:
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    generator = module.SamAutomaticMaskGenerator(
        tiny_sam(module), points_per_side=2, pred_iou_thresh=-9, stability_score_thresh=0
    )
    assert_proposals(Everything(generator)(PICTURE))


def test_mobile_sam_computes_with_the_weights_of_its_checkpoint(tmp_path: Path) -> None:
    module = pytest.importorskip("mobile_sam", reason="mobile_sam is not installed")
    torch.manual_seed(0)
    network = module.sam_model_registry["vit_t"]().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    torch.save(network.state_dict(), tmp_path / "mobile_sam.pt")
    built = build_generator("mobile_sam", str(tmp_path / "mobile_sam.pt"), "cpu").predictor.model
    attentions = [part for part in built.modules() if hasattr(part, "attention_bias_idxs")]
    assert attentions
    for part in attentions:
        torch.testing.assert_close(part.ab, part.attention_biases[:, part.attention_bias_idxs])


@pytest.mark.parametrize(
    ("name", "command"), [("owlv2", "no-time-to-train[proposers]"), ("sam", "[sam]"), ("mobile_sam", "MobileSAM.git")]
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: Patch, name: str, command: str) -> None:
    monkeypatch.setitem(sys.modules, SOURCES[name].module, None)
    with pytest.raises(UserError, match=r"pip install .*") as caught:
        build_source(name)
    assert command in str(caught.value)


@pytest.mark.parametrize("case", cases_in("sources"))
def test_mistakes_in_sources_and_missing_checkpoints_are_one_line(monkeypatch: Patch, case: dict[str, Any]) -> None:
    monkeypatch.setattr("no_time_to_train_extras.proposers.find_spec", lambda name: name)  # as if all were installed
    with pytest.raises(UserError) as caught:
        build_source(case["source"])
    assert says(case["refused"], str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("folders")
def test_a_missing_network_is_one_line(monkeypatch: Patch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"google/owlv2-base-patch16-ensemble: .*; see to the connection") as caught:
        build_source("owlv2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["another network", "half a file", "a pickle"])
def test_a_folder_that_is_not_the_networks_is_refused_in_one_line(folders: Path, tmp_path: Path, wrong: str) -> None:
    folder = shutil.copytree(
        folders / ("mm_grounding_dino" if wrong == "another network" else "owlv2"), tmp_path / "it"
    )
    weights = folder / "model.safetensors"
    if wrong == "half a file":
        weights.write_bytes(weights.read_bytes()[:9999])
    elif wrong == "a pickle":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    with pytest.raises(UserError, match=r"holds another network|is it the folder of this network") as caught:
        build_source(f"owlv2={folder}")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_numbers_are_refused(source: Callable[[str], Any]) -> None:
    owlv2 = source("owlv2")
    owlv2.model.objectness_head.dense2.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        owlv2(PICTURE)


def test_sam_3_needs_a_reference_with_an_object(folders: Path) -> None:
    sam3: Any = build_source(f"sam3={folders / 'sam3'}", "cpu")
    with pytest.raises(UserError, match="show it one first"):
        sam3(PICTURE)
    sam3.exemplars.append(Exemplar(ONE.image, np.zeros_like(ONE.mask)))
    with pytest.raises(UserError, match="whose mask is empty"):
        sam3(PICTURE)

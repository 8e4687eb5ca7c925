"""Thresholds: one per class, and measured on the references' own images; from Python and by the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from no_time_to_train import ReferenceSegmenter, Settings, UserError
from no_time_to_train.cli import main
from no_time_to_train.data.images import read_rgb
from no_time_to_train.data.reference_forms import Reference, find_references
from no_time_to_train.errors import UserNotice
from no_time_to_train.pipeline.explain_image import explain_image
from tests.conftest import Capture, Patch, nano_segmenter
from tests.test_measure_references import RINGS, STRIPES, write_references


@pytest.fixture
def segmenter() -> ReferenceSegmenter:
    return nano_segmenter(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three references of stripes, and one of rings."""
    folder = tmp_path_factory.mktemp("references")
    write_references(folder, {STRIPES: ["stripes"] * 3, RINGS: ["rings"]})
    return folder


def test_each_class_has_a_threshold_of_its_own(segmenter: ReferenceSegmenter, folder: Path) -> None:
    segmenter.add_references(find_references(folder).references)
    image = next((folder / "rings").glob("*[0-9].png"))
    proposals = segmenter.propose(image)
    everything = segmenter.classify(proposals, threshold=0)
    assert set(everything.labels) == {"rings", "stripes"}
    found = segmenter.classify(proposals, threshold={"rings": 0})
    expected = [one for one in everything if one.label == "rings" or one.score >= 0.5]
    assert list(found) == expected
    assert list(next(segmenter.segment_many([image], {"rings": 0}, progress=False))) == expected


def test_an_unknown_class_of_a_threshold_is_named(segmenter: ReferenceSegmenter, folder: Path) -> None:
    segmenter.add_references(find_references(folder).references)
    with pytest.raises(UserError, match="threshold: there is no class 'ring'; did you mean 'rings'"):
        segmenter.segment(np.zeros((9, 9), np.uint8), {"ring": 0.3})
    with pytest.raises(UserError, match="threshold of rings must be a number"):
        segmenter.segment(np.zeros((9, 9), np.uint8), {"rings": 3})


def test_automatic_thresholds_are_those_of_measure_references(segmenter: ReferenceSegmenter, folder: Path) -> None:
    references = find_references(folder).references
    expected = segmenter.measure_references(references, each=False).thresholds
    for reference in references:  # arrays have no file to be read again
        image, mask = reference.read()
        segmenter.add_reference(reference.label, image, mask)
    memory = segmenter.memory
    assert segmenter.measure_thresholds() == expected
    assert segmenter.memory is memory
    assert expected.keys() == {"stripes"}
    image = read_rgb(references[0].image)
    with pytest.warns(UserNotice, match="'auto': rings: 0.5 "):
        found = segmenter.segment(image, threshold="auto")
    assert list(found) == list(segmenter.segment(image, threshold=expected))


def test_automatic_thresholds_follow_the_memory(segmenter: ReferenceSegmenter, folder: Path) -> None:
    segmenter.add_references(find_references(folder).references)
    assert segmenter.measure_thresholds().keys() == {"stripes"}
    segmenter.remove("stripes")
    assert segmenter.measure_thresholds() == {}
    with pytest.raises(UserError, match="cannot be measured for rings"):
        segmenter.segment(np.zeros((9, 9), np.uint8), threshold="auto")


def test_measuring_with_guided_prompts_changes_no_state(segmenter: ReferenceSegmenter, folder: Path) -> None:
    references, networks = find_references(folder).references, segmenter.segmenter
    segmenter.add_references(references)
    networks.settings = Settings(points_per_side=6, prompts="guided")
    memory, prototypes, guided = segmenter.memory, networks.prototypes, networks.settings
    kept = prototypes.clone()
    segmenter.measure_references(references, each=False)
    assert (segmenter.memory, networks.prototypes, networks.settings) == (memory, prototypes, guided)
    assert prototypes.equal(kept)


def test_old_names_of_python_stay_for_this_version() -> None:
    assert ReferenceSegmenter.rank is ReferenceSegmenter.classify
    assert ReferenceSegmenter.check_references is ReferenceSegmenter.measure_references
    assert explain_image is ReferenceSegmenter.explain
    assert Reference("boat", Path("a.png")).is_plain


def test_the_old_name_of_the_threshold_gives_the_same_with_a_warning(
    segmenter: ReferenceSegmenter, folder: Path
) -> None:
    references = find_references(folder).references
    segmenter.add_references(references)
    expected = segmenter.segment(references[0].image, threshold=0.4).to_coco()
    with pytest.warns(DeprecationWarning, match="threshold"):
        assert segmenter.segment(references[0].image, score=0.4).to_coco() == expected


def test_a_memory_file_has_no_images_to_measure(segmenter: ReferenceSegmenter, folder: Path, tmp_path: Path) -> None:
    segmenter.add_references(find_references(folder).references[:1])
    segmenter.save_memory(tmp_path / "a.memory")
    segmenter.set_memory(None)
    segmenter.load_memory(tmp_path / "a.memory")
    with pytest.raises(UserError, match="threshold 'auto' measures the references on their own images, which a memory"):
        segmenter.segment(np.zeros((9, 9), np.uint8), threshold="auto")


def test_an_image_that_changed_since_it_was_shown_is_named(segmenter: ReferenceSegmenter, tmp_path: Path) -> None:
    write_references(tmp_path, {STRIPES: ["stripes"] * 2})
    references = find_references(tmp_path).references
    segmenter.add_references(references)
    Image.new("RGB", (20, 30)).save(references[1].image)
    with pytest.raises(UserError, match="has another size than when it was shown"):
        segmenter.measure_thresholds()


def test_references_measure_has_the_thresholds_of_segment_with_the_same_options(
    folder: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # --max-pixels sets it for this process
    image = next((folder / "rings").glob("*[0-9].png"))
    words = f"--nano --device cpu --points-per-side 4 --mode best --debias 2 --max-pixels 100000 --references {folder}"
    options = [*words.split(), "--negative", f"stripes:{image}:box=5,5,60,60", "--out"]
    main(["references", "measure", *options, str(tmp_path / "checked")])
    chosen = ["--threshold", "auto", "--class-score", "rings=0.2"]
    main(["segment", "--images", str(image), *chosen, *options, str(tmp_path / "out")])
    report = json.loads((tmp_path / "checked/reference_report.json").read_text())
    expected = {one["label"]: one["threshold"]["score"] for one in report["classes"] if one["threshold"]}
    assert expected.keys() == {"stripes"}
    assert f"--threshold auto: stripes: {expected['stripes']:g}" in capsys.readouterr().out
    info = json.loads((tmp_path / "out/images.json").read_text())["info"]
    assert info["class_scores"] == {**expected, "rings": 0.2}
    assert any(one["negative"] for one in report["shots"])

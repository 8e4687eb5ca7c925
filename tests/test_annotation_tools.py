"""The lines of docs/annotation_tools.md for tools that are used from Python, where these are installed."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from no_time_to_train import ReferenceSegmenter
from no_time_to_train.demo.scenes import NOVEL_CLASSES, draw_scene
from tests.conftest import Patch, nano_segmenter, write_picture

PAGE = Path(__file__).parents[1] / "docs" / "annotation_tools.md"
Run = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: Patch) -> Run:
    """Runs the lines for a tool in a folder with the photo and the memory that they name."""
    scene = draw_scene(np.random.default_rng(3), NOVEL_CLASSES[:1], (160, 200))
    write_picture(scene.image, tmp_path / "photo.jpg", tmp_path / "photos/photo.jpg")
    segmenter = nano_segmenter()
    segmenter.add_reference("boats", scene.image, mask=scene.masks[0])
    segmenter.save_memory(tmp_path / "boats.memory")
    segmenter.set_memory(None)
    monkeypatch.setattr(ReferenceSegmenter, "from_pretrained", lambda preset: segmenter)
    monkeypatch.chdir(tmp_path)

    def run_lines(tool: str, names: dict[str, Any]) -> None:
        (lines,) = re.findall(rf"## {tool}\n+```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        exec(lines, names)

    return run_lines


def test_fiftyone_gets_the_masks_of_the_objects(run: Run, monkeypatch: Patch) -> None:
    fo = pytest.importorskip("fiftyone")
    samples = [fo.Sample("photos/photo.jpg")]  # without a dataset, which needs MongoDB
    folder = SimpleNamespace(iter_samples=lambda autosave: samples)
    monkeypatch.setattr(fo.Dataset, "from_images_dir", lambda path: folder, raising=False)
    monkeypatch.setattr(fo, "launch_app", lambda dataset: SimpleNamespace(wait=lambda: None))
    names: dict[str, Any] = {}
    run("FiftyOne", names)
    shown = samples[0]["objects"].detections
    assert len(shown) == len(names["found"]) > 0
    height, width = names["found"].image.shape[:2]
    for one, detection in zip(names["found"], shown, strict=True):
        assert (detection.label, detection.confidence) == (one.label, one.score)
        assert (detection.to_segmentation(frame_size=(width, height)).mask.astype(bool) == one.mask).all()


def test_an_object_that_is_corrected_in_napari_becomes_a_reference(run: Run, monkeypatch: Patch) -> None:
    napari = pytest.importorskip("napari")
    if not os.environ.get("DISPLAY"):
        pytest.skip("napari needs a display: xvfb-run")
    names: dict[str, Any] = {}

    def correct() -> None:
        names["before"] = len(names["segmenter"].memory)
        names["layer"].data[:20] = 1
        names["viewer"].close()

    monkeypatch.setattr(napari, "run", correct)
    run("napari", names)
    assert len(names["segmenter"].memory) == names["before"] + 1

"""What the tests of the evaluators share."""

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from no_time_to_train.data.coco import read_coco
from tests.evaluation.records import SIDE, MakeTruth


@pytest.fixture
def truth(tmp_path: Path) -> MakeTruth:
    """Write and read ground truth with images 1 to ``images`` and classes 1 to ``classes``."""

    def make(annotations: list[dict[str, Any]], images: int = 1, classes: int = 1, first_id: int = 1) -> COCO:
        data = {
            "images": [{"id": i + 1, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in range(images)],
            "categories": [{"id": c + 1, "name": f"class {c + 1}"} for c in range(classes)],
            "annotations": [{"id": first_id + i, **a} for i, a in enumerate(annotations)],
        }
        (tmp_path / "truth.json").write_text(json.dumps(data))
        return read_coco(tmp_path / "truth.json")

    return make

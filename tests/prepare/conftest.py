"""What the tests of ``prepare`` share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from no_time_to_train.benchmarks.prepare import coco2017
from no_time_to_train.cli import main
from tests.prepare.sites import Site, coco_file, picture
from tests.web import serving


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    with serving(site.answer) as site.url:
        yield site


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., None]:
    return lambda dataset, *options: main(["prepare", dataset, "--root", str(tmp_path / "data"), *options])


@pytest.fixture
def refused(tmp_path: Path, refusal: Callable[..., str]) -> Callable[..., str]:
    """Run ``prepare``, which must fail, and return its error message of one line."""
    return lambda *arguments: refusal("prepare", *arguments, "--root", tmp_path / "data")


@pytest.fixture
def coco_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """COCO with 2 training and 3 validation images."""
    names = {
        "train2017": ["000000000001.jpg", "000000000002.jpg"],
        "val2017": [f"00000000001{i}.jpg" for i in range(3)],
    }
    annotations = {"annotations/captions_val2017.json": b"{}"}
    for split, images in names.items():
        annotations[f"annotations/instances_{split}.json"] = json.dumps(coco_file(images)).encode()
        content = {f"{split}/{name}": picture(i) for i, name in enumerate(images)}
        monkeypatch.setitem(coco2017.IMAGES, split, site.archive(f"{split}.zip", content))
        monkeypatch.setitem(coco2017.COUNTS, split, {"images": len(images), "annotations": len(images)})
    monkeypatch.setattr(coco2017, "ANNOTATIONS", site.archive("annotations.zip", annotations))
    return site

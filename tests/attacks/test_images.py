"""Images that are something else, and things that are no images."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train import Instances, UserError
from no_time_to_train.data.coco import index_coco, read_coco
from no_time_to_train.data.datasets import check_images_exist
from no_time_to_train.data.images import as_rgb, open_image, shown_size
from no_time_to_train.data.mask_inputs import as_mask
from no_time_to_train.data.memory_files import load_memory
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.data.reference_sets import read_references
from no_time_to_train.networks.checkpoints import read_checkpoint
from no_time_to_train.yaml_files import read_yaml
from tests.conftest import write_picture

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


@pytest.mark.parametrize("kind", ["EPS", "TGA", "PCX", "SGI", "DDS", "IM", "ICO", "BLP", "MSP", "XBM"])
def test_a_photo_of_another_format_is_refused_before_its_decoder_runs(kind: str, tmp_path: Path) -> None:
    """EPS matters most: Pillow hands it to Ghostscript, which is a programming language."""
    mode = {"BLP": "P", "MSP": "1", "XBM": "1"}.get(kind, "RGB")
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "photo.jpg", kind)
    for read in (open_image, shown_size):
        with pytest.raises(
            UserError, match=r"image .*photo\.jpg cannot be read: it is broken, or of no kind that is read of JPEG, PNG"
        ):
            read(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM", "AVIF", "HEIF", "MPO"]
)
def test_a_format_of_photos_is_read_whatever_its_ending(kind: str, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "photo.bin", kind)
    assert as_rgb(tmp_path / "photo.bin").shape == PIXELS.shape
    assert shown_size(tmp_path / "photo.bin") == PIXELS.shape[:2]


READERS: dict[str, Callable[[Path], Any]] = {
    "a.png": open_image,
    "b.png": shown_size,
    "c.png": as_mask,
    "coco.json": read_coco,
    "labelme.json": find_references,
    "saved.json": Instances.load,
    "voc.xml": find_references,
    "data.yaml": find_references,
    "configuration.yaml": read_yaml,
    "references.json": read_references,
    "references.pkl": read_references,
    "weights.pt": read_checkpoint,
    "a.memory": load_memory,
}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero"), os.mkdir])
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_a_device_or_a_folder_is_not_opened(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError, match=name) as error:
        READERS[name](tmp_path / name)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["boat/a.png", "boat/a_mask.png", "labels.json", "labels.xml"])
def test_a_pipe_among_references_is_named(name: str, tmp_path: Path) -> None:
    write_picture(PIXELS, tmp_path / "boat" / "a.png", tmp_path / "boat" / "a_mask.png")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=Path(name).name):
        _ = [reference.read() for reference in find_references(tmp_path).references]


def test_a_pipe_among_targets_is_not_called_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    coco = index_coco({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []})
    with pytest.raises(UserError, match=r"a\.png is not a file"):
        check_images_exist(tmp_path, coco, [1])


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert np.array_equal(as_rgb(tmp_path / "link.png"), PIXELS)


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(5, dtype=bool)[::-1],
        np.eye(5)[:, ::-1].astype(np.float16),
        np.eye(5, dtype=np.uint8)[None],
        torch.eye(5, dtype=torch.bfloat16),
        torch.eye(5, requires_grad=True),
        np.ones((5, 1), bool),
        np.ones((1, 1, 5), bool),
    ],
    ids=["upside down", "mirrored", "three dimensions", "bfloat16", "with a gradient", "a column", "a row"],
)
def test_a_mask_may_be_any_view_of_an_array(mask: Any) -> None:
    assert as_mask(mask).sum() == 5


@pytest.mark.parametrize("mask", [np.full((3, 3), "x"), np.full((3, 3), 1j), np.full((3, 3), None)])
def test_a_mask_that_holds_no_numbers_is_refused(mask: Any) -> None:
    with pytest.raises(UserError, match="give bools or numbers"):
        as_mask(mask)


def test_an_image_may_be_any_view_of_an_array() -> None:
    assert np.array_equal(as_rgb(PIXELS[::-1, ::-1]), PIXELS[::-1, ::-1])

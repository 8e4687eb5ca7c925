"""``prepare cdfsod`` end to end, and which network makes the masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from no_time_to_train.cli import main
from tests.conftest import Capture, Patch
from tests.prepare.sites import cdfsod_files, load, write_files, zip_of
from tests.stand_in import WholeBox


def test_cdfsod_prepares_the_saved_sets_and_reports_missing_ones(
    tmp_path: Path, prepare: Callable[..., None], capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("no_time_to_train.networks.box_prompts.build_box_segmenter", lambda *_: WholeBox())
    root = tmp_path / "data/cdfsod"
    root.mkdir(parents=True)
    (root / "FISH.zip").write_bytes(zip_of(cdfsod_files("FISH")))
    write_files(root, cdfsod_files("DIOR", "train/new_train", "test/new_test"))
    write_files(root, cdfsod_files("UODD"))
    (root / "UODD/test/test.jpg").unlink()
    with pytest.raises(SystemExit):
        prepare("cdfsod")
    complaint = capsys.readouterr().err
    assert "4 of 6 sets are not ready: ArTaxOr, clipart1k, NEU-DET, UODD" in complaint
    assert "https://github.com/lovelyqian/CDFSOD-benchmark" in complaint
    assert "1 of 1 images are missing" in complaint
    assert "the first is test/test.jpg" in complaint
    assert "5_shot.json has 1 of 5 annotations of 'fish'" in complaint
    for name, image in (("FISH", "train/5_shot.jpg"), ("DIOR", "train/new_train/5_shot.jpg")):
        shots = load(root / name / "prepared/5_shot_masks.json")
        assert shots["images"][0]["file_name"] == image
        (polygon,) = shots["annotations"][0]["segmentation"]
        corners = {(5, 6), (24, 6), (24, 15), (5, 15)}
        assert set(zip(polygon[::2], polygon[1::2], strict=True)) == corners
        assert shots["annotations"][0]["area"] == 200
        assert "segmentation" not in load(root / name / "prepared/test.json")["annotations"][0]
        assert not (root / name / "prepared/test_masks.json").exists()
    (lost := root / "FISH/test/test.jpg").unlink()
    prepare("cdfsod", "--sets", "FISH,DIOR", "--masks", "all")
    assert (root / "FISH/prepared/test_masks.json").is_file()
    assert lost.is_file(), "a set that was unpacked in part is unpacked again"


@pytest.mark.parametrize("has_sam_h", [True, False])
def test_masks_are_made_by_sam_h_where_its_checkpoint_is_there_and_otherwise_a_note_says_so(
    has_sam_h: bool, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    sam_h = Path("checkpoints/sam_vit_h_4b8939.pth")
    if has_sam_h:
        sam_h.parent.mkdir()
        sam_h.touch()
    chosen: list[tuple[Any, ...]] = []

    def build(*network: Any) -> WholeBox:
        chosen.append(network)
        return WholeBox()

    monkeypatch.setattr("no_time_to_train.networks.box_prompts.build_box_segmenter", build)
    Path("data/downloads").mkdir(parents=True)
    Path("data/downloads/FISH.zip").write_bytes(zip_of(cdfsod_files("FISH")))
    main(["prepare", "cdfsod", "--sets", "FISH"])
    assert {network[2] for network in chosen} == {sam_h if has_sam_h else None}
    note = f"note: masks are made by SAM 2, because {sam_h} does not exist"
    assert (note in capsys.readouterr().err) != has_sam_h
    Path("data/cdfsod/FISH/prepared/1_shot_masks.json").unlink()
    chosen.clear()
    main(["prepare", "cdfsod", "--sets", "FISH", "--sam2", "sam2_hiera_tiny"])
    assert [(network[0], network[2]) for network in chosen] == [("sam2_hiera_t", None)]
    assert "made by SAM 2" not in capsys.readouterr().err

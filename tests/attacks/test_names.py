"""Names of classes with spaces, control characters, and bytes that are no text."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from no_time_to_train.data.prompts import check_label
from no_time_to_train.data.reference_forms import find_references
from no_time_to_train.errors import UserError, UserNotice


def cut_out(folder: bytes) -> None:
    """A class folder with a cut-out."""
    os.mkdir(folder)  # noqa: PTH102 (bytes)
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[5:15, 5:15] = 255
    Image.fromarray(pixels).save(Path(os.fsdecode(folder)) / "a.png")


def test_spaces_around_the_name_of_a_class_folder_are_ignored(tmp_path: Path) -> None:
    cut_out(os.fsencode(tmp_path) + b"/boat ")
    cut_out(os.fsencode(tmp_path) + b"/boat")
    cut_out(os.fsencode(tmp_path) + b"/ cup")
    with pytest.warns(UserNotice, match="spaces around the names of classes are ignored: ' cup', 'boat '"):
        found = find_references(tmp_path)
    assert sorted(reference.label for reference in found.references) == ["boat", "boat", "cup"]


@pytest.mark.parametrize("name", [b"bo\xffat", b"bo\nat", b"bo\x1b[2Jat", b"\t"])
def test_a_class_folder_whose_name_no_file_can_hold_is_refused(name: bytes, tmp_path: Path) -> None:
    cut_out(os.fsencode(tmp_path) + b"/" + name)
    with pytest.raises(UserError, match="the name of a class") as error:
        find_references(tmp_path)
    str(error.value).encode()  # it can be printed
    assert len(str(error.value).splitlines()) == 1


def test_the_label_of_a_prompt_is_cleaned_likewise() -> None:
    assert check_label(" boat\n") == "boat"
    for label in ("bo\ud800at", "bo\0at", "\ufeff", 7):
        with pytest.raises(UserError, match="is not the name of a class"):
            check_label(label)

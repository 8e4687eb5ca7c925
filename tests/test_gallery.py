"""The gallery, opened in a browser from the file system: its filter, its slider, and a screenshot."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from no_time_to_train.data.instances import Instances
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.memory_bank import Category, MemoryBank
from no_time_to_train.visual.gallery import Gallery
from tests.conftest import Photo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CATEGORIES = [Category(1, "<i>boat"), Category(2, "鳥")]

#: Uses the controls one after the other, and writes into the page what it said before and after each.
OPERATE = """
<script>
const said = [byId("count").textContent];
function use(control, change) {
  change(control);
  control.dispatchEvent(new Event("input"));
  said.push(byId("count").textContent);
}
use(byId("score"), (slider) => { slider.value = 0.75; });
use(data.classes[0].box, (box) => { box.checked = false; });
use(byId("empty"), (box) => { box.checked = true; });
use(byId("score"), (slider) => { slider.value = slider.min; });
element(document.body, "pre", { id: "said", textContent: said.join("|") });
</script>
"""


@pytest.fixture
def page(photo: Photo, tmp_path: Path) -> Path:
    """A gallery of three images: a boat (0.9) and a bird (0.6), a bird (0.8), and no instance."""
    pixels = np.asarray(Image.open(photo.path))
    gallery = Gallery(tmp_path, MemoryBank.empty(CATEGORIES, 4))
    for index, found in enumerate([[(0, 0.9), (1, 0.6)], [(1, 0.8)], []]):
        count = len(found)
        masks = torch.from_numpy(photo.mask).expand(count, -1, -1)
        scores, classes = (
            torch.tensor([score for _, score in found]),
            torch.tensor([one for one, _ in found], dtype=int),
        )
        detections = Detections(masks, torch.zeros(count, 4, dtype=int), scores, classes)
        gallery.add(f"image {index} <b>#?.png", "overlays/x.jpg", Instances(pixels, CATEGORIES, detections))
    gallery.finish("3 instances")
    return tmp_path / "index.html"


def test_the_page_loads_nothing_from_the_internet(page: Path) -> None:
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.read_text(encoding="utf-8"))
    assert len(list((page.parent / "thumbnails").iterdir())) == 3


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_filter_and_slider_select_what_is_shown(page: Path) -> None:
    page.write_text(page.read_text(encoding="utf-8").replace("</html>", f"{OPERATE}</html>"), encoding="utf-8")
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    shown = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    said = re.search(r'<pre id="said">([^<]*)</pre>', shown)
    assert said is not None
    assert said[1].split("|") == [
        "3 instances in 2 of 3 images",
        "2 instances in 2 of 3 images",
        "1 instances in 1 of 3 images",
        "1 instances in 3 of 3 images",
        "2 instances in 3 of 3 images",
    ]
    picture = page.with_name("page.png")
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, check=True, timeout=120)
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 5

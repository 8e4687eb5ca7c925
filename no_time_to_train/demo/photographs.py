"""The photographs of ``demo --photos``: three of scikit-image's examples, at an address that names their version."""

from functools import partial
from pathlib import Path

from no_time_to_train.errors import UserError
from no_time_to_train.file_hashes import sha256
from no_time_to_train.networks.download import download, fetch_file
from no_time_to_train.networks.registry import PRESETS

ADDRESS = "https://gitlab.com/scikit-image/data/-/raw/5c090b56df3988d988ff97928e2ef2d2cbe38e1b"

#: Each file, its SHA-256, and the object in it that becomes a reference.
PHOTOS = (
    # Greek coins, Brooklyn Museum: no known copyright restrictions.
    ("coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba", "coin", "22,33,68,75"),
    # A cup of coffee by Rachel Michetti: CC0.
    ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", "cup", "172,17,412,309"),
    # Chelsea the cat by Stefan van der Walt: CC0.
    ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", "eye", "134,84,209,148"),
)

#: The small official networks.
CHECKPOINTS = (PRESETS["fast"].sam2, PRESETS["fast"].dinov2)


def fetch_photos(folder: Path) -> list[str]:
    """Download the networks and the photographs; the objects that are shown, as ``--reference`` takes them."""
    for name in CHECKPOINTS:
        download(name)
    for file, digest, *_ in PHOTOS:
        fetch_file(f"{ADDRESS}/{file}", folder / file, partial(_check, digest=digest), "the photograph")
    return [f"{label}:{folder / file}:box={box}" for file, _, label, box in PHOTOS]


def _check(path: Path, digest: str) -> None:
    if sha256(path) != digest:
        raise UserError(f"{path} is another file than the photograph of this name")

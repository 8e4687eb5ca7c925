"""A local server with small data sets in their published forms."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from no_time_to_train.benchmarks.prepare.archives import Archive
from no_time_to_train.data.class_splits import class_splits


@dataclass
class Site:
    """A web site.

    Attributes:
        folder: The folder that is served.
        url: Its address.
        asked: The paths that were requested, in order.
    """

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        path = self.folder / request.path.lstrip("/")
        if not path.is_file():
            return request.send_error(404)
        request.send_response(200)
        request.send_header("Content-Length", str(path.stat().st_size))
        request.end_headers()
        request.wfile.write(path.read_bytes())

    def archive(self, name: str, files: dict[str, bytes], missing_first: bool = False) -> Archive:
        """Serve an archive of these files; with ``missing_first``, its first address does not exist."""
        content, url = (zip_of if name.endswith(".zip") else tar_of)(files), f"{self.url}/{name}"
        (self.folder / name).write_bytes(content)
        if missing_first:
            return Archive((f"{self.url}/gone/{name}", url), 1, hashlib.md5(content).hexdigest())
        return Archive((url,), 1)


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def picture(seed: int, width: int = 60, height: int = 40) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def coco_file(names: list[str], **fields: Any) -> dict[str, Any]:
    """A COCO file with one box per image; images have 60x40 pixels."""
    return {
        "images": [{"id": i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 6, 20, 10], **fields}
            for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "fish"}],
    }


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def cdfsod_files(name: str, train: str = "train", test: str = "test") -> dict[str, bytes]:
    """A set of CD-FSOD with the images in these folders."""
    classes = class_splits()[f"cdfsod_{name}"]
    files = {}
    for stem, folder in (("1_shot", train), ("5_shot", train), ("10_shot", train), ("test", test)):
        content = coco_file([f"{stem}.jpg"])
        content["categories"] = [{"id": i, "name": one} for i, one in enumerate(classes, 1)]
        files[f"{name}/annotations/{stem}.json"] = json.dumps(content).encode()
        files[f"{name}/{folder}/{stem}.jpg"] = picture(1)
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

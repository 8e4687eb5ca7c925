"""``segment`` without networks: what finds the same three rectangles in every image, and runs with it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train import Instances, MemoryBank, Settings
from no_time_to_train.data.label_files import FORMATS
from no_time_to_train.data.targets import find_targets
from no_time_to_train.method.detections import Detections
from no_time_to_train.method.fast.at_once import AtOnce
from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.memory_bank import Category
from no_time_to_train.networks.box_prompts import rectangle
from no_time_to_train.pipeline.segment_images import segment_images
from no_time_to_train.pipeline.summary import Summary, Thresholds

ALL_FORMATS = (*FORMATS, "video")

#: What the stand-in finds in every image: score and class.
FOUND = [(0.90625, 0), (0.625, 1), (0.3125, 0)]


class StandIn:
    """Finds three rectangles in every image; raises ``error`` at an image once it has seen ``calls`` images."""

    def __init__(
        self, names: Sequence[str] = ("cup", "coin"), calls: int = 99, error: BaseException | None = None
    ) -> None:
        self.memory = MemoryBank.empty([Category(index, name) for index, name in enumerate(names, start=1)], 4)
        for index in range(len(names)):
            self.memory.add(index, torch.ones(4), torch.tensor(1.0))
        self.memory.postprocess()
        self.segmenter = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "proposer": torch.nn.Linear(2, 2)})
        for parameter in self.segmenter.parameters():
            torch.nn.init.ones_(parameter)
        self.segmenter.settings, self.segmenter.images = Settings(), AtOnce(1)
        self.precision, self.sources, self.names, self.compiled = "float32", [None], None, False
        self.calls, self.error, self.seen = calls, error, 0

    def propose(self, image: NDArray[np.uint8], **_: object) -> NDArray[np.uint8]:
        self.seen += 1
        if self.error is not None and self.seen > self.calls:
            raise self.error
        return image

    def propose_each(self, images: Iterable[tuple[NDArray[np.uint8], str, object]]) -> Iterator[NDArray[np.uint8]]:
        return (self.propose(image) for image, _, _ in images)

    def classify(self, image: NDArray[np.uint8], threshold: float) -> Instances:
        masks = torch.zeros(3, *image.shape[:2], dtype=torch.bool)
        for index in range(3):
            masks[index, 5 * index : 5 * index + 4, 2:9] = True
        boxes = torch.tensor([[2, 5 * index, 8, 5 * index + 3] for index in range(3)])
        scores, classes = torch.tensor([one for one, _ in FOUND]), torch.tensor([one for _, one in FOUND])
        classes = classes.clamp(max=len(self.memory.categories) - 1)
        return Instances(image, self.memory.categories, Detections(Masks.pack(masks), boxes, scores, classes))


class WholeBox:
    """Stands in for SAM 2: each mask fills its box."""

    name = "whole box"

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.array([rectangle(box, *image.shape[:2]) for box in boxes])


def run(
    out: Path,
    photos: Path,
    segmenter: StandIn | None = None,
    score: float = 0.5,
    formats: Sequence[str] = (),
    overwrite: bool = False,
) -> Summary:
    targets = find_targets([str(photos)], every=2)
    segmenter = segmenter or StandIn()
    return segment_images(segmenter, targets, out, Thresholds(score), formats, overwrite=overwrite)  # type: ignore[arg-type]


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], rate: float = 5, codec: str = "MJPG") -> None:
    """Write a video of frames [H, W, 3] in BGR, by default one that every system can read; the rate is in 1/s."""
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    for frame in frames:
        video.write(frame)
    video.release()


def files_of(folder: Path) -> dict[str, bytes]:
    """All files in a folder but the record of the run, which has times. The page states its own folder."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files.pop("run.json", None)
    return {name: path.read_bytes().replace(str(folder).encode(), b"OUT") for name, path in files.items()}

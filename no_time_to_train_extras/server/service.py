"""The networks and the memories of a server, and what they find in images that were sent."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from no_time_to_train.api.reference_segmenter import ReferenceSegmenter
from no_time_to_train.data.images import as_rgb, decode_image
from no_time_to_train.data.instances import Instances
from no_time_to_train.data.prompts import check_box, check_point
from no_time_to_train.errors import suggest
from no_time_to_train.method.memory_bank import MemoryBank
from no_time_to_train.networks.box_prompts import PromptedImage
from no_time_to_train_extras.server.compute_queue import ComputeQueue


@dataclass(frozen=True)
class Upload:
    """An image as it was sent: its name, which may be empty, and the content of its file."""

    name: str
    content: bytes = field(repr=False)

    def read(self) -> NDArray[np.uint8]:
        """The pixels, uint8 [H, W, 3] RGB, upright."""
        return as_rgb(decode_image(self.content, self.name or "that was sent"))


@dataclass
class Service:
    """What a server computes with.

    Attributes:
        segmenter: The networks. Its memory is exchanged in the thread of the queue, and nowhere else.
        memories: By name. The first one counts where a request names none.
        threshold: The lowest score of an object, in [0, 1], where a request names none.
        queue: Where requests wait.
        networks: Held while the networks work on prompts: something else in this process may use them.
        shown: The image in which objects were shown last, so that the next click takes the mask decoder only; and its
            height and width.
    """

    segmenter: ReferenceSegmenter
    memories: dict[str, MemoryBank]
    threshold: float
    queue: ComputeQueue
    networks: AbstractContextManager[Any] = field(default_factory=nullcontext)
    shown: tuple[Upload, PromptedImage, tuple[int, ...]] | None = field(default=None, init=False)

    def known(self) -> Mapping[str, MemoryBank]:
        """The memories that there are now."""
        return self.memories

    def lowest(self, memory: MemoryBank) -> float | dict[str, float]:
        """The lowest score of an object, or of those of each class, where a request names none."""
        return self.threshold

    def memory(self, name: str | None) -> MemoryBank:
        """A memory by its name.

        Raises:
            HTTPException: 404 where there is none.
        """
        known = self.known()
        if not known:
            raise HTTPException(404, "the memory is empty: show an object first")
        name = next(iter(known)) if name is None else name
        if name not in known:
            raise HTTPException(404, f"there is no memory {name!r}{suggest(name, known)}")
        return known[name]

    def segment(
        self, uploads: Sequence[Upload], memory: MemoryBank, threshold: float | None
    ) -> Iterator[tuple[str, Instances]]:
        """Find objects in images, one after the other, in the thread of the queue.

        Returns:
            The name and the instances of each image.
        """
        if self.segmenter.memory is not memory:
            self.segmenter.set_memory(memory)
        lowest = self.lowest(memory) if threshold is None else threshold
        for upload in uploads:
            yield upload.name, self.segmenter.classify(self.segmenter.propose(upload.read()), lowest)

    def prompted(
        self,
        upload: Upload,
        points: Sequence[tuple[float, float]],
        negative_points: Sequence[tuple[float, float]],
        box: Sequence[float] | None,
    ) -> NDArray[np.bool_] | None:
        """The mask, bool [H, W], of the object that prompts show, in pixels as for ``PromptedImage.masks``.

        It is None where nothing was found. This runs in the thread of the queue.
        """
        with self.networks:
            if self.shown is None or self.shown[0] != upload:
                pixels = upload.read()
                self.shown = upload, PromptedImage(self.segmenter.prompts, pixels), pixels.shape[:2]
            _, prompted, (height, width) = self.shown
            on, off = ([check_point(one, height, width) for one in some] for some in (points, negative_points))
            if box is not None:  # a person may draw it in any direction
                x, y = sorted(box[::2]), sorted(box[1::2])
                box = check_box((x[0], y[0], x[1], y[1]), height, width)
            masks, _ = prompted.masks(on, off, box)
        return masks[0] if len(masks) else None

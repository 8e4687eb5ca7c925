"""Where the proposals of a :class:`ReferenceSegmenter` are from: SAM 2's prompts, files, networks, functions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from no_time_to_train.data.coco import ImageId
from no_time_to_train.data.images import is_tensor, to_numpy
from no_time_to_train.data.proposal_files import GRID, ProposalFile
from no_time_to_train.errors import UserError
from no_time_to_train.file_hashes import sha256_if_readable
from no_time_to_train.method.beyond.given import Given
from no_time_to_train.method.settings import PROPOSALS_PER_IMAGE
from no_time_to_train.ranges import check_type

#: ``grid``, a file of proposals, the name of a network, a function of an image uint8 [H, W, 3], or several of these.
Proposer = str | Path | Callable[[NDArray[np.uint8]], Given]


@dataclass
class NetworkSource:
    """A function or a network that proposes boxes or masks in images.

    Attributes:
        name: What results call it.
        propose: The proposals in an image, uint8 [H, W, 3] RGB.
        most: The proposals of an image that are kept, those of the highest scores.
        weights: The SHA-256 of the files of its weights, where they are in a file or folder that was given.
    """

    name: str
    propose: Callable[[NDArray[np.uint8]], Given]
    most: int = PROPOSALS_PER_IMAGE
    weights: tuple[str | None, ...] = ()

    def show(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Show a positive reference, uint8 [H, W, 3] and bool [H, W], to a network that looks for it."""
        if hasattr(self.propose, "exemplars"):
            from no_time_to_train_extras.proposers.exemplars import Exemplar

            self.propose.exemplars.append(Exemplar(image, mask))

    def notices(self) -> list[str]:
        """Nothing is left out."""
        return []

    def depends_on(self) -> Any:
        """What the proposals depend on, as JSON values."""
        return [self.name, self.most, *self.weights]


#: A source of proposals; None is SAM 2's own prompts.
Source = ProposalFile | NetworkSource | None


def build_sources(
    proposer: Proposer | Sequence[Proposer], most: int, device: str | torch.device | None
) -> list[Source]:
    """The sources that ``proposer`` names."""
    several = list(proposer) if isinstance(proposer, Iterable) else []
    given = [proposer] if isinstance(proposer, str | Path) or callable(proposer) else several
    if not given or len(set(map(str, given))) < len(given):
        raise UserError("proposer names no source, or one of them twice")
    return [_source(one, most, device) for one in given]


def _source(proposer: Proposer, most: int, device: str | torch.device | None) -> Source:
    if not isinstance(proposer, str | Path):
        check_type("proposer", proposer, Callable)
        return NetworkSource(getattr(proposer, "__name__", type(proposer).__name__), proposer, most)
    if str(proposer) == GRID:
        return None
    if Path(proposer).suffix == ".json":
        return ProposalFile(Path(proposer), most)

    from no_time_to_train_extras.proposers import build_source, read_spec

    place = Path(read_spec(str(proposer))[1])
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place] if place.is_file() else []
    return NetworkSource(
        str(proposer), build_source(str(proposer), device), most, tuple(map(sha256_if_readable, files))
    )


def given_in(
    sources: Iterable[Source], pixels: NDArray[np.uint8], name: str, image_id: ImageId | None = None
) -> list[Given | None]:
    """What the sources propose in an image, uint8 [H, W, 3] RGB, with a name or an id that files know."""
    found: list[Given | None] = []
    for source in sources:
        if isinstance(source, NetworkSource):
            found.append(source.propose(pixels).best(source.most))
        else:
            found.append(None if source is None else source.given(image_id, name, *pixels.shape[:2]))
    return found


def as_given(boxes: Any, scores: Sequence[float] | NDArray[Any] | None, height: int, width: int) -> Given:
    """Boxes that a program gives, with their scores, which are 1 by default."""
    try:
        given = _floats(boxes)
        corners = torch.as_tensor(given.reshape(-1, 4) if given.ndim < 2 else given)
        values = torch.ones(len(corners)) if scores is None else torch.as_tensor(_floats(scores))
    except (OverflowError, TypeError, ValueError):  # what numpy takes for no numbers, or not for four each
        corners, values = torch.empty(0, 0), torch.empty(0)
    right = corners.shape[1:] == (4,) and values.shape == corners.shape[:1]
    if not (right and corners.isfinite().all() and ((values >= 0) & (values <= 1)).all()):
        raise UserError("boxes are n times x1, y1, x2, y2 in pixels, and scores n numbers from 0 to 1")
    corners = corners.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    if not (corners[:, 2:] > corners[:, :2]).all():
        raise UserError("a box is empty or outside the image: boxes are x1, y1, x2, y2 in pixels, ends excluded")
    return Given(corners, values)


def _floats(values: Any) -> NDArray[np.float32]:
    """Numbers that a program gives, in any form; a ValueError where they are complex or masked."""
    values = to_numpy(values) if is_tensor(values) else np.asanyarray(values)
    if isinstance(values, np.ma.MaskedArray) or np.iscomplexobj(values):  # numpy would take a part of it
        raise ValueError
    return np.asarray(values, np.float32)

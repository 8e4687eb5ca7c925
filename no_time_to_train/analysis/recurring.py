"""References without a mask, an addition to the paper: which proposal of a picture shows the object.

A picture is all that is given. With several pictures of a class, the object is what recurs: the proposal whose mask
vector agrees best with proposals of the other pictures. With one picture, it is what catches the eye: the proposal that
is large, central and unlike what the picture's border shows. That a picture alone can be the prompt, because the
features of DINOv2 find the object in it, is the idea of IPSeg (arXiv 2310.10912). The numbers below were chosen on
drawn scenes (timing/image_prompts.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from no_time_to_train.method.proposals import DescribedProposals

#: Exponents of what makes a proposal salient.
AREA, PREDICTED_IOU, OFF_BORDER, UNLIKE_BORDER = 0.7, 2.0, 4.0, 0.25

#: Distance from the picture's center, in shares of its side, at which salience has fallen to exp(-1/2).
CENTRAL = 0.57

#: Exponent of the agreement with the other pictures.
AGREEMENT = 4.0

#: Of proposals whose boxes have a larger IoU, only the most salient one is kept; and this many at most.
SAME_BOX, KEPT = 0.95, 100

#: A proposal of which less than this share overlaps with the chosen one shows something else.
OTHER = 0.1

#: A choice is doubtful where it leads by less than this: made from one picture alone, or from what recurs.
DOUBTFUL_ALONE, DOUBTFUL_RECURRING = 0.2, 0.5


@dataclass
class Picture:
    """The proposals of a reference picture that may show its object, the most salient first.

    Attributes:
        vectors: float32 [n, D] mask vectors, L2-normalized.
        salience: float32 [n] in [0, 1], in descending order; the first is 1.
        logits: float32 [n, h, w]; the masks are ``logits > 0``.
    """

    vectors: Tensor
    salience: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.salience)


class Choice(NamedTuple):
    """The proposal that shows a picture's object.

    Attributes:
        row: Its row in the picture.
        lead: How far its score is ahead of that of the best proposal that shows something else, as a share of it:
            0 where that one is as likely, 1 where there is none.
        doubtful: Whether the lead is so small that the choice is often wrong.
    """

    row: int
    lead: float
    doubtful: bool


def salient(proposals: DescribedProposals, logits: Tensor) -> Picture:
    """The most salient proposals of a picture, at most ``KEPT``; ``logits`` are their masks, float32 [n, h, w]."""
    regions = (logits > 0).float()
    salience = salience_of(regions, proposals.predicted_iou, proposals.vectors)
    kept = nms(proposals.boxes.float(), salience, SAME_BOX)[:KEPT]
    best = salience[kept[:1]].clamp(min=torch.finfo(salience.dtype).tiny)
    return Picture(proposals.vectors[kept], salience[kept] / best, logits[kept])


def salience_of(regions: Tensor, predicted_iou: Tensor, vectors: Tensor) -> Tensor:
    """How much each proposal stands out, float [n], at least 0: large, well cut out, central, unlike the border.

    Args:
        regions: float [n, h, w] in {0, 1}, none empty.
        predicted_iou: float [n].
        vectors: float [n, D], L2-normalized.
    """
    height, width = regions.shape[1:]
    area = regions.mean(dim=(1, 2))
    y = torch.linspace(-0.5, 0.5, height, device=regions.device)
    x = torch.linspace(-0.5, 0.5, width, device=regions.device)
    down, right = regions.mean(dim=2) @ y / height / area, regions.mean(dim=1) @ x / width / area
    ring = torch.ones(height, width, dtype=torch.bool, device=regions.device)
    ring[1:-1, 1:-1] = False
    on_border = regions[:, ring].mean(dim=1)  # the share of the border that a proposal covers
    background = F.normalize(on_border @ vectors, dim=0)  # 0 where no proposal touches the border
    return (
        area**AREA
        * predicted_iou.clamp(0, 1) ** PREDICTED_IOU
        * (1 - on_border) ** OFF_BORDER
        * torch.exp(-(down**2 + right**2) / (2 * CENTRAL**2))
        * (1 - vectors @ background).clamp(0, 1) ** UNLIKE_BORDER
    )


def choose_recurring(pictures: Sequence[Picture], known: Tensor) -> list[Choice]:
    """The proposal of each picture that shows the object of all of them.

    Its score is its salience times a power of its agreement with the other pictures. The agreement with one picture is
    the largest product of similarity and salience over the proposals there; that with a known reference is similarity.

    Args:
        pictures: The pictures of a class, each with at least one proposal.
        known: float [k, D], the vectors of references of the class whose masks are known.
    """
    known = F.normalize(known, dim=1)
    choices = []
    for picture in pictures:
        agreement = [picture.vectors @ reference for reference in known]
        for other in pictures:
            if other is not picture:
                agreement.append((picture.vectors @ other.vectors.T * other.salience).amax(dim=1))
        if agreement:
            score = picture.salience * torch.stack(agreement).clamp(min=0).mean(dim=0) ** AGREEMENT
            choices.append(_choose(picture, score, DOUBTFUL_RECURRING))
        else:
            choices.append(_choose(picture, picture.salience, DOUBTFUL_ALONE))
    return choices


def _choose(picture: Picture, score: Tensor, doubtful: float) -> Choice:
    """The best proposal by score, float [n], which is doubtful where it leads by less than ``doubtful``."""
    row = int(score.argmax())
    regions = (picture.logits > 0).flatten(1).float()
    areas, shared = regions.sum(dim=1), regions @ regions[row]
    elsewhere = score.where(shared <= OTHER * areas.clamp(max=areas[row]), 0).max()
    lead = 1 - float(elsewhere / score[row]) if score[row] > 0 else 0.0
    return Choice(row, lead, lead < doubtful)

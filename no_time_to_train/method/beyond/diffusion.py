"""Graph diffusion, an alternative to soft merging: masks that better masks cover lose score, also along chains.

It follows FSOD-VFM (arXiv 2602.03137), whose masks come from another proposer and are not suppressed before, as with
``suppression="none"``. Unlike in soft merging, the vectors of the masks play no role.
"""

import torch
from torch import Tensor

from no_time_to_train.method.fast.masks import Masks
from no_time_to_train.method.soft_merge import covered_shares

#: a, how much of what covers a mask is passed on to the masks that this one covers: the value of FSOD-VFM.
ALPHA = 0.3


def diffuse(scores: Tensor, classes: Tensor, masks: Masks, vectors: Tensor, exponent: float = 0.5) -> Tensor:
    """Lower the score of each mask by how much of it better-ranked masks of its class cover.

    With M_i the masks in descending rank, and j over the masks of i's class ranked before it:

        W_ij = |M_i and M_j| / |M_i|
        w_i  = max_j W_ij
        pi   = (1 - a) (I - a W)^-1 w
        score_i <- score_i * max(0, 1 - pi_i) ^ exponent

    W is strictly lower triangular, so that pi is the solution of one triangular system. The arguments are those of
    ``soft_merge``; the vectors are not used.
    """
    merged = scores.clone()
    for class_index in classes.unique():
        members = (classes == class_index).nonzero()[:, 0]
        merged[members] *= (1 - steady_state(covered_shares(masks[members])).to(scores)).clamp(min=0) ** exponent
    return merged


def steady_state(covered: Tensor) -> Tensor:
    """The fixed point, float64 [n], of ``pi <- a W pi + (1 - a) w``, from W, strictly lower triangular."""
    start = covered.amax(dim=1, keepdim=True)
    graph = torch.eye(len(covered), dtype=covered.dtype) - ALPHA * covered
    return (1 - ALPHA) * torch.linalg.solve_triangular(graph, start, upper=False, unitriangular=True)[:, 0]

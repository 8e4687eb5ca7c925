"""k-means and principal components of patch tokens.

Only the pictures of a memory use them; the method does not.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def kmeans(tokens: Tensor, k: int, iterations: int = 20) -> Tensor:
    """Cluster tokens by k-means under the cosine similarity.

    The first center is the token farthest from the mean, and each further one is the token farthest from all centers
    so far. Nothing is random.

    Args:
        tokens: float [n, D], n > 0.
        iterations: Updates of the centers.

    Returns:
        float [min(k, n), D], the L2-normalized centers.
    """
    tokens = F.normalize(tokens, dim=1)
    centers = F.normalize(tokens.mean(dim=0, keepdim=True), dim=1)
    for _ in range(min(k, len(tokens))):
        nearest = (tokens @ centers.T).amax(dim=1)
        centers = torch.cat([centers, tokens[nearest.argmin()][None]])
    centers = centers[1:]
    for _ in range(iterations):
        assignment = F.one_hot((tokens @ centers.T).argmax(dim=1), len(centers)).to(tokens.dtype)
        updated = F.normalize(assignment.T @ tokens, dim=1)
        centers = torch.where(assignment.any(dim=0)[:, None], updated, centers)
    return centers


def principal_components(tokens: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Compute the first principal components of tokens.

    Args:
        tokens: float [m, D].

    Returns:
        The mean, float [D], and the components, float [min(n, m, D), D], orthonormal, in descending order of variance.
    """
    mean = tokens.mean(dim=0)
    components = torch.linalg.svd(tokens - mean, full_matrices=False).Vh[:n]
    return mean, components

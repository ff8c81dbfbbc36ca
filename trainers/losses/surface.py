"""Losses that depend on the border between vessel and tissue, within each slice.

Borders are those of the target: voxels with a different value among their four neighbours in the plane. Voxels beyond
the patch are assumed to equal the patch's outermost voxels, so a vessel cut by the patch has no border there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST = 0.8  # limit of alpha, which keeps the denominator well above 0 for large, smooth targets


class BoundaryDoU(nn.Module):
    """Difference over union; the smaller the border's share of the target, the less the overlap adds to the union.

    1 - (1 - alpha) I / (|X| + |Y| - (1 + alpha) I) with probabilities X, target Y, and their overlap I (arXiv
    2308.00220); alpha = 1 - 2 * border / area of the target, at most 0.8. For a target that is all border it equals the
    dice loss; without any vessel it is 0, with gradient 0.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets of 0 and 1, both (B, m, H, W) -> scalar."""
        probabilities = logits.sigmoid()
        area = targets.sum()
        border = (targets * border_voxels(targets)).sum()
        alpha = (1 - 2 * border / area.clamp(min=1)).clamp(max=_MOST)
        overlap = (probabilities * targets).sum()
        both = probabilities.sum() + area
        loss: Tensor = (both - 2 * overlap) / (both - (1 + alpha) * overlap).clamp(min=1e-7)
        return loss * (area > 0)


class EdgeCrossEntropy(nn.Module):
    """Mean cross-entropy in which voxels on both sides of a border count `weight` times."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets of 0 and 1, both (B, m, H, W) -> scalar."""
        weights = 1 + (self.weight - 1) * border_voxels(targets)
        each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (weights * each).sum() / weights.sum()


def border_voxels(targets: Tensor) -> Tensor:
    """1 where one of the four neighbours in the plane is vessel and the voxel is not, or vice versa; (B, m, H, W).

    A voxel is vessel from a target of one half on, because soft targets also change between voxels without a border.
    """
    inside = targets >= 0.5
    found = torch.zeros_like(inside)
    for axis in (-2, -1):
        length = targets.shape[axis]
        changes = inside.narrow(axis, 1, length - 1) != inside.narrow(axis, 0, length - 1)
        found.narrow(axis, 1, length - 1).logical_or_(changes)
        found.narrow(axis, 0, length - 1).logical_or_(changes)
    return found.to(targets.dtype)

"""Sparse labels: how much the unsure background of incompletely labelled volumes counts in any loss.

An unsure voxel of weight w is treated as if the network had predicted 1 - (1 - p)^w there instead of p. So its
cross-entropy is exactly w times that of sure background, it adds about w p to the sums of region losses, and the losses
themselves need no change.
"""

import math

import torch
from pydantic import BaseModel, Field, NonNegativeInt
from torch import Tensor
from torch.nn import functional

_SURELY_BACKGROUND = -30.0  # the logit of a probability of 1e-13
_LOW = -20.0  # a logit below which 1 - (1 - p)^w is w p in float32


class SparseWeights(BaseModel, frozen=True, extra="forbid"):
    """How a recipe treats volumes whose labels are incomplete (`annotated` < 1)."""

    sparse_background: float = Field(default=0.3, ge=0, le=1)  # weight of background far from labels; 1: full, 0: none
    sparse_margin: NonNegativeInt = 3  # distance in voxels from a labelled vessel within which background is sure

    @property
    def marked_margin(self) -> int | None:
        """The margin beyond which batches mark background as unsure; None if all background counts in full."""
        return self.sparse_margin if self.sparse_background < 1 else None


def weigh_unsure(logits: Tensor, targets: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Logits and targets for a loss: unsure voxels (targets below 0) become background of weight `weight`, 0 to 1.

    All other voxels, and all voxels at weight 1, stay the same bit for bit. At weight 0 the logits of unsure voxels are
    replaced by those of sure background, so that no loss depends on them.
    """
    unsure, targets = targets < 0, targets.clamp(min=0)
    if weight == 1:
        return logits, targets
    if weight == 0:
        return logits.masked_fill(unsure, _SURELY_BACKGROUND), targets
    return torch.where(unsure, lessened(logits, weight), logits), targets


def lessened(logits: Tensor, weight: float) -> Tensor:
    """The logits of 1 - (1 - p)^weight, exact up to rounding for any logit; weight must be above 0."""
    certainty = weight * functional.softplus(logits.clamp(min=_LOW))  # -log of (1 - p)^weight
    return torch.where(logits < _LOW, logits + math.log(weight), certainty + torch.log(-torch.expm1(-certainty)))

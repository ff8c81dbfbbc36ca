"""clDice: whether centrelines lie inside vessels; breaks and false branches affect it more than a rough border.

Shit et al. 2021, arXiv 2003.07311: soft skeletons by repeated erosion and opening, here within each slice.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_EROSIONS = 5  # half the width in voxels of the thickest vessel whose centreline is found; thicker ones have none
_SMOOTH = 1.0  # voxels added to every sum, as in the paper's code, so that an empty skeleton lies inside any mask


class CentrelineDice(nn.Module):
    """1 - harmonic mean of two shares: predicted skeleton inside the target, target skeleton inside the prediction."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and targets of 0 and 1, both (B, m, H, W) -> scalar."""
        probabilities = logits.sigmoid()
        inside = _share(soft_skeleton(probabilities), targets)
        found = _share(soft_skeleton(targets), probabilities)
        return 1 - 2 * inside * found / (inside + found)


def soft_skeleton(image: Tensor) -> Tensor:
    """What opening removes, summed over erosions; 0..1, (B, m, H, W). For a mask it is the skeleton in each slice."""
    skeleton = functional.relu(image - _dilate(_erode(image)))
    for _ in range(_EROSIONS):
        image = _erode(image)
        more = functional.relu(image - _dilate(_erode(image)))
        skeleton = skeleton + functional.relu(more - skeleton * more)
    return skeleton


def _share(skeleton: Tensor, mask: Tensor) -> Tensor:
    share: Tensor = ((skeleton * mask).sum() + _SMOOTH) / (skeleton.sum() + _SMOOTH)
    return share


def _erode(image: Tensor) -> Tensor:
    """The lowest value of a voxel and its four neighbours."""
    down = -functional.max_pool2d(-image, (3, 1), 1, (1, 0))
    across = -functional.max_pool2d(-image, (1, 3), 1, (0, 1))
    return torch.minimum(down, across)


def _dilate(image: Tensor) -> Tensor:
    """The highest value of a voxel and its eight neighbours."""
    return functional.max_pool2d(image, 3, 1, 1)
